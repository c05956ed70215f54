"""Labels: from a column of any sensible type to class codes 0..C-1, with -1 for an unlabelled row."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.storage.arrow_types import Array

UNLABELLED_CODE = -1

# A label of -1 says "nothing voted"; in a column of text it may have come through a CSV file.
_UNLABELLED_VALUES: frozenset[int | str] = frozenset({-1, "-1", ""})


def find_label_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type labels of a column are kept in - int64 or string - or None where it holds no labels."""
    if pa.types.is_dictionary(kind):
        return find_label_type(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return pa.int64()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    return None


class LabelColumn:
    """The labels of one role, gathered batch by batch as small codes; faults are kept, not raised."""

    def __init__(self, kind: pa.DataType) -> None:
        self.type = find_label_type(kind) or pa.string()
        self.given_type = kind
        self.is_float = pa.types.is_floating(kind.value_type if pa.types.is_dictionary(kind) else kind)
        self.classes: list[int | str] = []
        self.num_minus_one = 0
        self.first_fraction: tuple[int, float] | None = None
        self._codes: dict[int | str, int] = {}
        self._parts: list[npt.NDArray[np.int64]] = []

    def add(self, values: Array, rows: npt.NDArray[np.int64]) -> None:
        """Take in the labels of one batch; `rows` are their row numbers in the file."""
        encoded: Any = pc.dictionary_encode(self._read_values(values, rows))
        to_code = [self._find_code(value) for value in encoded.dictionary.to_pylist()]
        lookup = np.array([*to_code, UNLABELLED_CODE], dtype=np.int64)
        positions = encoded.indices.fill_null(len(to_code)).to_numpy(zero_copy_only=False)
        self._parts.append(lookup[positions])

    def get_codes(self) -> npt.NDArray[np.int64]:
        """Return one code a row: the position in `classes`, or -1 where unlabelled."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int64)

    def _find_code(self, value: int | str) -> int:
        if value in _UNLABELLED_VALUES:
            self.num_minus_one += 1
            return UNLABELLED_CODE
        if value not in self._codes:
            self._codes[value] = len(self.classes)
            self.classes.append(value)
        return self._codes[value]

    def _read_values(self, values: Array, rows: npt.NDArray[np.int64]) -> Array:
        if pa.types.is_dictionary(values.type):
            values = pc.cast(values, values.type.value_type)
        if self.is_float:
            values = self._drop_fractions(pc.cast(values, pa.float64()), rows)
        elif pa.types.is_uint64(values.type):
            # A number past 2^63 is no class; 2^64 - 1 in particular is a -1 that lost its sign.
            values = pc.if_else(pc.less(values, pa.scalar(2**63, pa.uint64())), values, pa.scalar(None, pa.uint64()))
        cast: Array = pc.cast(values, self.type)
        return cast

    def _drop_fractions(self, values: Array, rows: npt.NDArray[np.int64]) -> Array:
        numbers = values.to_numpy(zero_copy_only=False)
        missing = np.isnan(numbers)
        with np.errstate(invalid="ignore"):
            faulty = ~missing & ((np.floor(numbers) != numbers) | (np.abs(numbers) >= 2**53))
        if self.first_fraction is None and faulty.any():
            first = int(np.argmax(faulty))
            self.first_fraction = int(rows[first]), float(numbers[first])
        return pa.array(np.where(missing | faulty, 0, numbers), mask=missing | faulty)


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The one map of labels to class codes that the curated, the trusted and the test rows share."""

    values: tuple[int | str, ...]
    type: pa.DataType

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.values)

    def encode(self, column: LabelColumn) -> npt.NDArray[np.int64]:
        """Return one class code a row; -1 where unlabelled, or where the label is not in the map."""
        places = {value: code for code, value in enumerate(self.values)}
        lookup = np.array([*(places.get(value, -1) for value in column.classes), UNLABELLED_CODE], dtype=np.int64)
        codes: npt.NDArray[np.int64] = lookup[column.get_codes()]
        return codes

    def decode(self, codes: npt.NDArray[np.int64]) -> Array:
        """Return the labels of class codes, in the type of the data; null for -1."""
        unlabelled = codes < 0
        indices = pa.array(np.where(unlabelled, 0, codes), pa.int64(), mask=unlabelled)
        return pa.array(self.values, self.type).take(indices)


def build_label_map(columns: Iterable[LabelColumn]) -> LabelMap:
    """Build the map from the curated rows' labels and the trusted ones: sorted, distinct, 0..C-1."""
    gathered = list(columns)
    kind = pa.string() if any(column.type == pa.string() for column in gathered) else pa.int64()
    distinct = {value for column in gathered for value in column.classes}
    if kind == pa.string():
        distinct = {value for value in distinct if isinstance(value, str)}
    return LabelMap(tuple(sorted(distinct, key=lambda value: str(value) if kind == pa.string() else value)), kind)
