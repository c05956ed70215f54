"""From parquet to a prepared set, by the product's own encoders."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality.prepared import PreparedSet
from benchmarks.quality.sets import SetSpec, Size
from service.settings import Settings
from service.storage.arrow_types import ChunkedArray
from worker.data.arrays import ArrayFolder
from worker.data.examples import AbstractEncoder, Part
from worker.data.images import ImageEncoder
from worker.models.plan import plan_model

_GOLD, _VOTES, _SPLIT = "label", "weak_labels", "split"
_LEAST_PER_TRUSTED = 5
"""With fewer curated rows than so many times the trusted ones (a trial run), fewer are trusted."""


@dataclass(frozen=True)
class _Source:
    """One file's rows of one role, with all their columns."""

    table: pa.Table
    input_names: tuple[str, ...]
    num_classes: int

    def take(self, rows: NDArray[np.int64]) -> "_Source":
        return _Source(self.table.take(rows), self.input_names, self.num_classes)

    def read(self, name: str) -> NDArray[np.int64]:
        return self.table.column(name).to_numpy().astype(np.int64)

    def read_inputs(self) -> pa.Table:
        """Return the inputs in the types that the encoders want: numbers as float64, texts as strings."""
        columns = [_convert(self.table.column(name)) for name in self.input_names]
        return pa.table(columns, names=list(self.input_names)).combine_chunks()


def prepare_set(spec: SetSpec, size: Size, model: str, seed: int, *, data: Path, scratch: Path) -> PreparedSet:
    """Read, cut and encode a set; the seed draws the rows of every role.

    Args:
        spec: what to read.
        size: how much.
        model: whose encoding.
        seed: of the draws.
        data: folder of all data sets.
        scratch: a folder that does not exist yet, gone afterwards.
    """
    generator = np.random.default_rng([0x5E7, seed])
    train = _read_role(spec, data, "train")
    train = train.take(_draw(np.flatnonzero(train.read(spec.given) >= 0), size.num_train, generator))
    num_train = train.table.num_rows
    pool = train
    trusted = np.empty(0, dtype=np.int64)
    if spec.has_trusted:
        valid = _read_role(spec, data, "valid")
        pool = _Source(pa.concat_tables([train.table, valid.table]), train.input_names, train.num_classes)
        trusted = np.arange(num_train, pool.table.num_rows)
    elif not spec.is_pruned:
        trusted = _draw(np.arange(num_train), min(size.num_trusted, num_train // _LEAST_PER_TRUSTED), generator)
    test = _read_role(spec, data, "test")
    test = test.take(_draw(np.arange(test.table.num_rows), size.num_test, generator))
    given, gold = pool.read(spec.given), pool.read(_GOLD)
    inputs, test_inputs = pool.read_inputs(), test.read_inputs()
    train_rows = np.arange(num_train)
    encoder = _fit_encoder(spec, size, model, Part("train", inputs, train_rows, given[train_rows]))
    num_classes = pool.num_classes
    with ArrayFolder(scratch, lambda: None) as folder:
        return PreparedSet(
            pool=encoder.encode(Part("pool", inputs, np.arange(len(gold)), gold), num_classes, folder),
            test=encoder.encode(
                Part("test", test_inputs, np.arange(test_inputs.num_rows), test.read(_GOLD)), num_classes, folder
            ),
            given=given,
            gold=gold,
            train_rows=train_rows,
            trusted_rows=trusted,
            votes=_stack_votes(pool.table.column(_VOTES)) if spec.has_votes else None,
            shape=encoder.shape,
        )


def _fit_encoder(spec: SetSpec, size: Size, model: str, part: Part) -> AbstractEncoder:
    settings = Settings()
    if spec.kind == "image" and size.side is not None:
        return ImageEncoder.fit(part, settings.max_image_pixels, size.side)
    return plan_model(model, spec.kind, part, settings).encoder


def find_missing(spec: SetSpec, data: Path) -> Path | None:
    """Return a file of the set that is not there, if any."""
    files = [data / spec.folder / name for name in ("train.parquet", "test.parquet")]
    whole = data / spec.folder / "data.parquet"
    missing = [file for file in files if not file.exists()]
    return None if whole.exists() or not missing else missing[0]


def _read_role(spec: SetSpec, data: Path, role: str) -> _Source:
    folder = data / spec.folder
    whole = folder / "data.parquet"
    table = pq.read_table(whole if whole.exists() else folder / f"{role}.parquet")
    table = table.filter(pc.equal(table.column(_SPLIT), pa.scalar(role)))
    metadata = table.schema.metadata or {}
    num_classes = len(json.loads(metadata[b"class_names"]))
    names = tuple(json.loads(metadata[b"feature_columns"])) if spec.kind == "features" else (spec.kind,)
    kept: Sequence[str] = [name for name in (*names, spec.given, _GOLD, _VOTES) if name in table.column_names]
    return _Source(table.select(list(dict.fromkeys(kept))), names, num_classes)


def _draw(rows: NDArray[np.int64], count: int | None, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return so many of the rows, ascending."""
    if count is None or count >= len(rows):
        return rows
    return np.sort(generator.permutation(rows)[:count])


def _convert(column: ChunkedArray) -> ChunkedArray:
    return column.cast(pa.float64()) if pa.types.is_integer(column.type) else column


def _stack_votes(column: ChunkedArray) -> NDArray[np.int64]:
    return np.array(column.to_pylist(), dtype=np.int64)
