"""A bundle, opened after a check of every digest in it, and the one-line ways from it into a training loop."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sama_bundle import frames, hf_datasets, streams
from sama_bundle.errors import UnreadableSourceError
from sama_bundle.reading import Content, Positions
from sama_bundle.recorded import RecordedRows
from sama_bundle.sources import Read, locate_by_columns, locate_by_reading
from service.cli.verification import verify_bundle
from service.client.bundle_listing import INFLUENCES_FILE, SOFT_LABELS_FILE
from service.jobs.document import parse_document

if TYPE_CHECKING:
    from sama_bundle.torch_datasets import KeptExamples, WeightCollate, WeightedExamples
    from sama_core.sampler import WeightedSampler

# Columns of rows.parquet; a mapping gives them other names.
Names = Sequence[str] | Mapping[str, str]

_LABELS = "label"
_GIVEN_LABELS = "given_label"
_GIVEN_COLUMNS = {"label": _GIVEN_LABELS, "weight": "given_weight", "score": "given_score"}
_UNLABELLED = -1


class Bundle:
    """What a finished job decided, ready to be trained on.

    Every loader first holds the data it is given against what the bundle recorded of each row, and refuses data
    that differs with a `DifferentSourceError` that names the first differing row.

    Attributes:
        directory: the bundle's folder.
        manifest: its manifest.json.
        num_rows: curated rows, kept and dropped: N.
        keep: int64, sorted numbers of the rows to train on.
        weights: float32 (N,), loss multipliers, 0 where dropped.
        class_names: the classes, in the order of their codes.
        is_given: true where every change of a label is undone.
    """

    def __init__(self, directory: Path, *, is_given: bool = False) -> None:
        self.directory = directory
        self.is_given = is_given
        self.manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())
        self.keep: Positions = np.load(directory / "keep.npy").astype(np.int64)
        self.weights: npt.NDArray[np.float32] = np.load(directory / "weights.npy")
        self._recorded = RecordedRows(directory / "rows.parquet", _GIVEN_COLUMNS if is_given else None)
        if is_given:
            self._take_given()
        self.keep.setflags(write=False)
        self.weights.setflags(write=False)
        self.class_names: tuple[int | str, ...] = tuple(self.manifest["labels"]["names"])
        self._document = parse_document(self.manifest["document"], is_stored=True)
        self.num_rows = self._recorded.num_rows

    def given(self) -> "Bundle":
        """Return the bundle with every change of a label undone; itself where the job's task changes none.

        Labels are the given ones, weights those that these deserve, of mean 1 over the rows with a given label;
        `label`, `weight` and `score` of rows.parquet are read so too. Rows without a given label are not kept, and
        there are no soft labels. Which of the others are kept is still what the job decided.

        Raises:
            UnreadableSourceError: the job finished before what rows are worth under their given labels was recorded.
        """
        return self if self.manifest.get("relabel") is None else Bundle(self.directory, is_given=True)

    def _take_given(self) -> None:
        """Put weights and kept rows of the given labels in the place of the job's."""
        known = _GIVEN_COLUMNS["weight"] in self._recorded.names
        has_label = self._read_labels().is_valid().to_numpy()
        worth = self._recorded.read_column("weight") if known else None
        if worth is None or (worth.is_null().to_numpy() & has_label).any():
            message = (
                "The bundle does not say what corrected rows are worth under their given labels: the job finished "
                "before that was recorded. Run it again, or with task: reweight."
            )
            raise UnreadableSourceError(message, param="given")
        self.keep = self.keep[has_label[self.keep]]
        self.weights = np.zeros_like(self.weights)
        self.weights[self.keep] = worth.to_numpy()[self.keep]

    @cached_property
    def labels(self) -> npt.NDArray[Any]:
        """The label to train on of every row, corrected where the job corrected it; -1 or None where unlabelled."""
        labels = self._read_labels()
        whole = pa.types.is_integer(labels.type)
        found: npt.NDArray[Any] = (labels.fill_null(_UNLABELLED) if whole else labels).to_numpy()
        return found

    @cached_property
    def label_codes(self) -> npt.NDArray[np.int64]:
        """The label to train on of every row as class code 0..C-1, in the order of `class_names`; -1 unlabelled."""
        labels = self._read_labels()
        codes: Any = pc.index_in(labels, value_set=pa.array(self.class_names, labels.type))
        found: npt.NDArray[np.int64] = codes.fill_null(_UNLABELLED).to_numpy().astype(np.int64)
        return found

    @cached_property
    def soft_labels(self) -> npt.NDArray[np.float32] | None:
        """(N, C) probability of every class for every row, mapped from disk; None where the job made none."""
        path = self.directory / SOFT_LABELS_FILE
        return np.load(path, mmap_mode="r") if path.is_file() and not self.is_given else None

    @cached_property
    def influences(self) -> pa.Table | None:
        """influences.parquet: which trusted examples speak against the most suspicious rows; None where not traced."""
        path = self.directory / INFLUENCES_FILE
        return pq.read_table(path) if path.is_file() else None

    def read_rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return rows.parquet, or some of its columns, all N rows in input order.

        Raises:
            UnreadableSourceError: the bundle has no such column, or a text stands in place of a list of them.
        """
        _refuse_text(columns)
        names = self._recorded.names if columns is None else columns
        for name in names:
            if name not in self._recorded.names:
                raise UnreadableSourceError(
                    f"columns names {name!r}; a row has {', '.join(self._recorded.names)}.", param="columns"
                )
        return self._recorded.read(names)

    def subset(
        self,
        dataset: Any,
        *,
        read: Read | None = None,
        ids: Sequence[object] | None = None,
        relabel: Callable[[Any, int], Any] | None = None,
    ) -> "KeptExamples":
        """Return the examples of a torch data set that are to be trained on.

        Args:
            dataset: the curated rows in input order, indexed by number; or a Hugging Face data set.
            read: the content of a row by its number: text, the bytes of an image, or a mapping of features. Every
                row is read once, to be compared. Not needed for a Hugging Face data set.
            ids: the id of each row (its number where the data has no ids), compared; alone where contents are not
                at hand, which proves less.
            relabel: puts a class code, the label to train on, into an example: `lambda pair, code: (pair[0], code)`.

        Raises:
            DifferentSourceError: naming the first row that differs.
            UnreadableSourceError: neither `read` nor `ids`, or they do not fit.
        """
        return self._take(self.keep, dataset, self._locate(dataset, read, ids), relabel)

    def weighted(
        self,
        dataset: Any,
        *,
        read: Read | None = None,
        ids: Sequence[object] | None = None,
        relabel: Callable[[Any, int], Any] | None = None,
    ) -> "WeightedExamples":
        """Return the examples of `subset` that count, each with its loss weight, for a loader with `collate()`.

        As the job's own proof trains: without the rows of weight 0, which would take the place of others in a batch,
        and with weights of mean 1 over the rest. The arguments are those of `subset`.

        Raises:
            DifferentSourceError: naming the first row that differs.
            UnreadableSourceError: neither `read` nor `ids`, or they do not fit.
        """
        from sama_bundle.torch_datasets import WeightedExamples

        rows = self.keep[self.weights[self.keep] > 0]
        examples = self._take(rows, dataset, self._locate(dataset, read, ids), relabel)
        weights = self.weights[rows].astype(np.float64)
        return WeightedExamples(examples, (weights / weights.mean()).astype(np.float32))

    def _take(
        self, rows: Positions, dataset: Any, positions: Positions, relabel: Callable[[Any, int], Any] | None
    ) -> "KeptExamples":
        from sama_bundle.torch_datasets import KeptExamples

        codes = self.label_codes[rows] if relabel is not None else np.empty(0, dtype=np.int64)
        return KeptExamples(dataset, positions[rows], codes, relabel)

    def collate(self, inner: Callable[[list[Any]], Any] | None = None) -> "WeightCollate":
        """Return the collate function for `weighted`: batches (inputs, labels, weight), or with a key `weight`.

        Args:
            inner: makes a batch of the examples alone, as a tokenizer's collator does; None takes torch's own way.
        """
        from sama_bundle.torch_datasets import WeightCollate

        return WeightCollate(inner)

    def sampler(
        self,
        dataset: Any,
        *,
        read: Read | None = None,
        ids: Sequence[object] | None = None,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        num_draws: int | None = None,
    ) -> "WeightedSampler":
        """Return a sampler that draws rows of `dataset` in proportion to their weights, with replacement.

        For a loader over the whole data set, not over `subset`; and in place of weights in the loss, not beside
        them. Exact past 2**24 rows; under several ranks each draws its own share of one stream. Call `set_epoch`
        before each pass.

        Args:
            dataset: as for `subset`.
            read: as for `subset`.
            ids: as for `subset`.
            seed: of the stream.
            rank: this process, 0..num_ranks-1.
            num_ranks: processes that share the stream.
            num_draws: draws of one pass over all ranks, at least one a rank; None takes the number of kept rows.

        Raises:
            DifferentSourceError: naming the first row that differs.
            UnreadableSourceError: neither `read` nor `ids`, or they do not fit.
            sama_core.errors.OptionsError: a rank or a number of draws outside of its range; weights that are all 0.
        """
        from sama_bundle.torch_datasets import build_sampler

        positions = self._locate(dataset, read, ids)
        draws = len(self.keep) if num_draws is None else num_draws
        return build_sampler(self.weights, positions, len(dataset), draws, seed=seed, rank=rank, num_ranks=num_ranks)

    def select(self, dataset: Any, *, columns: Names = ()) -> Any:
        """Return the rows of a Hugging Face data set that are to be trained on, with `columns` of rows.parquet.

        Raises:
            DifferentSourceError: naming the first row that differs.
            UnreadableSourceError: no `datasets.Dataset`, or without the columns that the examples are made of.
        """
        view = hf_datasets.view_dataset(dataset)
        added = self._read_kept(columns, view.names)
        positions = locate_by_columns(self._document, self._recorded, view)
        return hf_datasets.take_rows(dataset, positions[self.keep], added)

    def filter_frame(self, frame: Any, *, columns: Names = ()) -> Any:
        """Return the rows of a pandas, polars or Arrow frame that are to be trained on, with `columns` of rows.parquet.

        The frame may be the whole file, if it has the columns of the job's splits, or the curated rows alone.

        Raises:
            DifferentSourceError: naming the first row that differs.
            UnreadableSourceError: no frame, or without the columns that the examples are made of.
        """
        view = frames.view_frame(frame)
        added = self._read_kept(columns, view.names)
        positions = locate_by_columns(self._document, self._recorded, view)
        return frames.take_rows(frame, positions[self.keep], added)

    def filter_keys(
        self,
        examples: Any,
        *,
        key: Callable[[dict[str, Any]], object] | None = None,
        read: Callable[[dict[str, Any]], Content] | None = None,
        columns: Names = (),
        drop_others: bool = False,
    ) -> Any:
        """Return a WebDataset pipeline, or any iterable of mappings, reduced to the examples to train on.

        Each example is compared as it comes by, before it is decoded; one that never comes is not missed.

        Args:
            examples: the pipeline.
            key: the id of an example; None takes its `__key__`.
            read: its content; None takes its png, jpg or jpeg, its txt or text, or its json.
            columns: of rows.parquet, put into each example: `weight` as `__weight__`.
            drop_others: leave out examples that are no curated rows, instead of refusing the stream.

        Raises:
            UnreadableSourceError: two rows of the bundle share an id. While it is read also DifferentSourceError, at
                the first example that differs.
        """
        added = self._read_kept(columns, ())
        keeper = streams.KeyFilter(self._document, self._recorded, added, key=key, read=read, drop_others=drop_others)
        return streams.filter_stream(examples, keeper)

    def _locate(self, dataset: Any, read: Read | None, ids: Sequence[object] | None) -> Positions:
        if read is None and ids is None and hf_datasets.is_hf_dataset(dataset):
            return locate_by_columns(self._document, self._recorded, hf_datasets.view_dataset(dataset))
        return locate_by_reading(self._document, self._recorded, len(dataset), read, ids)

    def _read_labels(self) -> Any:
        # Bundles made before labels could be corrected have given labels alone.
        return self._recorded.read_column(_LABELS if _LABELS in self._recorded.names else _GIVEN_LABELS)

    def _read_kept(self, columns: Names, taken: Sequence[str]) -> pa.Table:
        _refuse_text(columns)
        names = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
        both = [(name, new) for name, new in names.items() if new in taken]
        if both:
            name, new = both[0]
            message = f"The data has a column {new!r} already; give another name: columns={{{name!r}: 'new_name'}}."
            raise UnreadableSourceError(message, param="columns")
        return self.read_rows(list(names)).take(self.keep).rename_columns(list(names.values()))


def open_bundle(directory: str | Path) -> Bundle:
    """Open the folder of a bundle, after the checks of `sama verify`: every digest, and that the files agree.

    Raises:
        service.errors.ServiceError: `check_failed`, with every check that did not hold.
    """
    verify_bundle(Path(directory))
    return Bundle(Path(directory))


def _refuse_text(columns: object) -> None:
    """Refuse a name where names are wanted: its letters would be taken for them."""
    if isinstance(columns, str):
        message = f"columns is {columns!r}, a text; wanted a list of names, such as [{columns!r}]."
        raise UnreadableSourceError(message, param="columns")
