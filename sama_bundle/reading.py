"""Examples of any source brought to the form in which a job digests them: by the very code that a job reads with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sama_bundle.errors import UnreadableSourceError
from service.errors import ServiceError
from service.jobs.document import ALL_OTHER_COLUMNS, JobDocument
from service.settings import Settings
from service.storage.arrow_types import Array
from service.storage.assignment import match_value
from service.storage.findings import Findings
from service.storage.inputs import InputReader, check_columns, choose_inputs
from service.storage.labels import LabelColumn, LabelMap, find_label_type

Positions = npt.NDArray[np.int64]
Content = str | bytes | Mapping[str, Any] | None

_CONTENT_TYPES: Mapping[str, tuple[type, str]] = {
    "text": (str, "text"),
    "image": (bytes, "the encoded bytes of an image"),
    "features": (Mapping, "a mapping of column names to values"),
}


def list_columns(document: JobDocument, present: Sequence[str]) -> list[str]:
    """Return the columns of a source that tell whether it is the one of the document.

    Raises:
        UnreadableSourceError: a column that the examples are made of is not there.
    """
    dataset = document.dataset
    inputs = [name for name in (dataset.text, dataset.image) if name is not None] or list(dataset.features or ())
    if inputs == [ALL_OTHER_COLUMNS]:
        return list(present)
    for name in inputs:
        if name not in present:
            raise UnreadableSourceError(
                f"The source has no column {name!r}, of which the bundle's examples are made; it has {_list(present)}.",
                param=name,
            )
    others = [dataset.id, dataset.label, *_list_split_columns(document)]
    return list(dict.fromkeys([*inputs, *(name for name in others if name is not None and name in present)]))


def find_curated(document: JobDocument, batch: pa.RecordBatch) -> Positions:
    """Return which rows of a batch are curated ones: those of the document's splits, where it has their columns."""
    names = batch.schema.names
    chosen = np.ones(batch.num_rows, dtype=np.bool_)
    own = document.dataset.split
    if own is not None:
        if own.column in names:
            chosen = match_value(batch.column(own.column), own.value)
    else:
        for section in (document.meta, document.test):
            split = section.split if section is not None else None
            if split is not None and split.column in names:
                chosen &= ~match_value(batch.column(split.column), split.value)
    return np.flatnonzero(chosen).astype(np.int64)


class ExampleReader:
    """Brings batches of examples to the recorded form: digest of the content, id, given label.

    Relative paths of images start at the folder of the file that the bundle was made from.
    """

    def __init__(self, document: JobDocument) -> None:
        self._document = document
        self._file = Path(document.dataset.uri)
        # The server's limit to its own folders is not the user's: it is their data, on their machine.
        self._limits = Settings(data_roots=(Path("/"),))

    def read(self, batch: pa.RecordBatch, positions: Positions) -> dict[str, Array]:
        """Return what the bundle records of such rows, as far as the batch has it.

        Raises:
            UnreadableSourceError: a column is of a type that no job reads.
        """
        dataset, findings = self._document.dataset, Findings()
        inputs = choose_inputs(self._document, batch.schema)
        check_columns(inputs, batch.schema, "the source", findings)
        try:
            findings.raise_problems()
            reader = InputReader(inputs, self._limits, self._file, findings, decode=False)
            _, digests = reader.read(batch, positions)
            found: dict[str, Array] = {"content_sha256": pa.array([digest.hex() for digest in digests], pa.string())}
            if dataset.label in batch.schema.names:
                found["given_label"] = _read_labels(batch.column(dataset.label), positions)
        except (ServiceError, pa.ArrowException) as exc:
            raise UnreadableSourceError(f"The source cannot be read: {exc}") from exc
        if dataset.id is not None and dataset.id in batch.schema.names:
            found["id"] = batch.column(dataset.id)
        return found

    def read_contents(self, contents: Sequence[Content], positions: Positions) -> dict[str, Array]:
        """Return the digests of contents as a caller reads them: text, bytes of an image, or a mapping of features.

        Raises:
            UnreadableSourceError: a content is of another kind than the bundle's examples.
        """
        dataset = self._document.dataset
        kind, wanted = _CONTENT_TYPES[dataset.kind]
        for position, content in zip(positions.tolist(), contents, strict=True):
            if not isinstance(content, kind) and not (content is None and dataset.kind == "text"):
                seen = type(content).__name__
                raise UnreadableSourceError(
                    f"read gave {seen} for row {position}; wanted {wanted}, of which the bundle was made.", param="read"
                )
        try:
            if dataset.kind == "text":
                batch = pa.record_batch({str(dataset.text): pa.array(contents, pa.large_string())})
            elif dataset.kind == "image":
                batch = pa.record_batch({str(dataset.image): pa.array(contents, pa.large_binary())})
            else:
                batch = pa.RecordBatch.from_pylist([dict(content) for content in contents])  # type: ignore[arg-type]
        except pa.ArrowException as exc:
            raise UnreadableSourceError(f"What read gave cannot be put into columns: {exc}", param="read") from exc
        list_columns(self._document, batch.schema.names)
        return {"content_sha256": self.read(batch, positions)["content_sha256"]}


def _read_labels(values: Array, positions: Positions) -> Array:
    """Return labels as a job records them: whole numbers or text, null where unlabelled."""
    if find_label_type(values.type) is None:
        raise UnreadableSourceError(f"The source's labels are of type {values.type}; wanted whole numbers or text.")
    column = LabelColumn(values.type)
    column.add(values, positions)
    return LabelMap(tuple(column.classes), column.type).decode(column.get_codes())


def _list_split_columns(document: JobDocument) -> list[str]:
    sections = (document.dataset, document.meta, document.test)
    return [section.split.column for section in sections if section is not None and section.split is not None]


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:20]) + (" ..." if len(names) > 20 else "")
