"""Tabular encoding: numbers standardised with missing ones marked, categories one-hot with one for the unseen."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.storage.arrow_types import ChunkedArray
from worker.data.arrays import Array, ArrayFolder, take_batches, take_column
from worker.data.examples import AbstractEncoder, InputShape, Part, TabularExamples

MAX_CATEGORIES = 64
CLIP_STANDARD_DEVIATIONS = 10.0

# Codes of every categorical column: its frequent values follow these two.
MISSING_CODE, OTHER_CODE = 0, 1


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers: (value - mean) / std, missing ones taken as the median and marked."""

    name: str
    median: float
    mean: float
    std: float
    marks_missing: bool

    def encode(self, column: ChunkedArray) -> NDArray[np.float32]:
        """Return (B, 1) or, with the mark of missing values, (B, 2)."""
        values = read_numbers(column)
        missing = np.isnan(values)
        standard = (np.where(missing, self.median, values) - self.mean) / self.std
        # A value far outside of what was fitted must not drown every other input.
        parts = [np.clip(standard, -CLIP_STANDARD_DEVIATIONS, CLIP_STANDARD_DEVIATIONS)]
        if self.marks_missing:
            parts.append(missing.astype(np.float64))
        return np.stack(parts, axis=1).astype(np.float32)


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of categories: one code for missing, one for unseen or rare, one for each frequent value."""

    name: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.values) + 2

    def encode(self, column: ChunkedArray) -> NDArray[np.int32]:
        """Return (B,) codes."""
        codes: dict[object, int] = {None: MISSING_CODE}
        codes |= {value: code for code, value in enumerate(self.values, OTHER_CODE + 1)}
        return np.array([codes.get(value, OTHER_CODE) for value in column.to_pylist()], dtype=np.int32)


class TabularEncoder(AbstractEncoder):
    """Encodes named columns; everything it knows was fitted on the training rows it was made from."""

    def __init__(self, numeric: list[NumericColumn], categorical: list[CategoricalColumn], notes: list[str]) -> None:
        self._numeric = numeric
        self._categorical = categorical
        self.notes = notes
        self._num_numbers = sum(2 if column.marks_missing else 1 for column in numeric)
        num_inputs = self._num_numbers + sum(column.size for column in categorical)
        self.shape = InputShape("features", (num_inputs,))

    @classmethod
    def fit(cls, part: Part) -> "TabularEncoder":
        """Fit an encoding of the table's columns on training rows: float64 is a number, text a category."""
        numeric: list[NumericColumn] = []
        categorical: list[CategoricalColumn] = []
        notes: list[str] = []
        for name in part.table.schema.names:
            column = take_column(part.table, name, part.rows)
            if pa.types.is_floating(column.type):
                numeric.append(_fit_numeric(name, column, notes))
            else:
                categorical.append(_fit_categorical(name, column, notes))
        return cls(numeric, categorical, notes)

    def encode(self, part: Part, num_classes: int, folder: ArrayFolder) -> TabularExamples:
        """Encode rows into an array of numbers and an array of codes."""
        written = folder.write_all(
            {
                f"{part.name}-numbers": (np.float32, (self._num_numbers,)),
                f"{part.name}-codes": (np.int32, (len(self._categorical),)),
            },
            self._encode_batches(part),
        )
        numbers, codes = written[f"{part.name}-numbers"], written[f"{part.name}-codes"]
        num_rows = len(part.rows)
        return TabularExamples(
            numbers if self._num_numbers else np.empty((num_rows, 0), np.float32),
            codes if self._categorical else np.empty((num_rows, 0), np.int32),
            tuple(column.size for column in self._categorical),
            part.labels,
            num_classes,
        )

    def _encode_batches(self, part: Part) -> Iterator[dict[str, Array]]:
        for batch in take_batches(part.table, part.rows):
            numbers = [column.encode(batch.column(column.name)) for column in self._numeric]
            codes = [column.encode(batch.column(column.name)) for column in self._categorical]
            empty = np.empty((batch.num_rows, 0))
            yield {
                f"{part.name}-numbers": np.concatenate(numbers, axis=1) if numbers else empty,
                f"{part.name}-codes": np.stack(codes, axis=1) if codes else empty,
            }


def _fit_numeric(name: str, column: ChunkedArray, notes: list[str]) -> NumericColumn:
    values = read_numbers(column)
    missing = np.isnan(values)
    median = float(np.median(values[~missing])) if not missing.all() else 0.0
    filled = np.where(missing, median, values)
    std = float(filled.std())
    if std == 0.0 and not missing.any():
        notes.append(f"column {name!r} has the same value in every training row and tells nothing")
    return NumericColumn(name, median, float(filled.mean()), std or 1.0, marks_missing=bool(missing.any()))


def _fit_categorical(name: str, column: ChunkedArray, notes: list[str]) -> CategoricalColumn:
    counts = Counter(value for value in column.to_pylist() if value is not None)
    pairs = sorted((-count, value) for value, count in counts.items())
    if len(pairs) > MAX_CATEGORIES:
        notes.append(
            f"column {name!r} has {len(pairs)} values; the {MAX_CATEGORIES} most frequent have a category each, "
            "the others share one"
        )
    return CategoricalColumn(name, tuple(value for _count, value in pairs[:MAX_CATEGORIES]))


def read_numbers(column: ChunkedArray) -> NDArray[np.float64]:
    """Return a column of float64 with NaN for missing."""
    return np.asarray(column.to_numpy(), dtype=np.float64)
