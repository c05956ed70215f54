"""Holds what a source has against what a bundle recorded, and names the first row that differs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sama_bundle.errors import DifferentSourceError
from sama_bundle.reading import Positions
from sama_bundle.recorded import RecordedRows
from service.storage.arrow_types import Array

# In this order a difference is told where a row has several.
COMPARED = ("id", "content_sha256", "given_label")
_WORDS = {"id": "id", "content_sha256": "content", "given_label": "given label"}


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Some rows of a source, in order: where in the source they stand, and their columns in the recorded form."""

    positions: Positions
    columns: Mapping[str, Array]


def compare_rows(recorded: RecordedRows, found: Iterable[FoundRows], source: str) -> Positions:
    """Check that the found rows are the recorded ones; return where in the source each curated row stands.

    Raises:
        DifferentSourceError: naming the first row that differs, is missing, or is too many.
    """
    cursor, start = recorded.open_cursor(COMPARED), 0
    positions: list[Positions] = [np.zeros(0, dtype=np.int64)]
    for rows in found:
        wanted = cursor.take(len(rows.positions))
        _compare_columns(rows, wanted, start, source)
        if wanted.num_rows < len(rows.positions):
            _refuse_too_many(recorded.num_rows, rows, wanted.num_rows, source)
        start += wanted.num_rows
        positions.append(rows.positions)
    if start < recorded.num_rows:
        _refuse_missing(recorded.num_rows, cursor.take(1), start, source)
    return np.concatenate(positions)


def describe_difference(place: str, column: str, seen: object, wanted: object) -> str:
    """Return what differs in a row, in words."""
    return f"{place} differs in its {_WORDS[column]}: {seen!r}, but {wanted!r} when the bundle was made."


def _compare_columns(rows: FoundRows, wanted: pa.Table, start: int, source: str) -> None:
    firsts: list[tuple[int, str]] = []
    for name in COMPARED:
        if name in rows.columns:
            expected = wanted.column(name).combine_chunks()
            first = _find_first(rows.columns[name].slice(0, wanted.num_rows), expected)
            firsts += [] if first is None else [(first, name)]
    if not firsts:
        return
    at, name = min(firsts, key=lambda difference: difference[0])
    row, seen, expected_value = start + at, _show(rows.columns[name][at]), _show(wanted.column(name)[at])
    given = None if name == "id" else _show(wanted.column("id")[at])
    place = _name_place(row, int(rows.positions[at]), source, given)
    message = describe_difference(place, name, seen, expected_value)
    raise DifferentSourceError(message, row=row, column=name, seen=seen, wanted=expected_value)


def _find_first(seen: Array, wanted: Array) -> int | None:
    """Return the first place where two arrays differ; a missing value equals a missing value alone."""
    whole = pa.types.is_integer(seen.type) and pa.types.is_integer(wanted.type)
    kind = pa.int64() if whole else pa.large_string()
    plain = pc.cast(seen, seen.type.value_type) if pa.types.is_dictionary(seen.type) else seen
    left, right = pc.cast(plain, kind), pc.cast(wanted, kind)
    same = pc.equal(left, right).fill_null(False).to_numpy(zero_copy_only=False)
    both_missing = left.is_null().to_numpy(zero_copy_only=False) & right.is_null().to_numpy(zero_copy_only=False)
    differing = np.flatnonzero(~(same | both_missing))
    return int(differing[0]) if len(differing) else None


def _refuse_too_many(num_recorded: int, rows: FoundRows, at: int, source: str) -> None:
    given = _show(rows.columns["id"][at]) if "id" in rows.columns else None
    place = _name_place(num_recorded, int(rows.positions[at]), source, given)
    message = f"{place} is one too many: the bundle has {num_recorded:,} rows."
    raise DifferentSourceError(message, row=num_recorded, column="row", seen=num_recorded + 1, wanted=num_recorded)


def _refuse_missing(num_recorded: int, wanted: pa.Table, row: int, source: str) -> None:
    given = _show(wanted.column("id")[0])
    message = f"row {row} (id {given!r}) is missing: {source} has {row:,} curated rows, the bundle {num_recorded:,}."
    raise DifferentSourceError(message, row=row, column="row", seen=row, wanted=num_recorded)


def _name_place(row: int, position: int, source: str, given: object) -> str:
    """Return where a row stands, and its id where that is known and not at fault itself."""
    inside = [] if row == position else [f"row {position} of {source}"]
    inside += [] if given is None else [f"id {given!r}"]
    name = f"row {row} of {source}" if row == position else f"curated row {row}"
    return f"{name} ({', '.join(inside)})" if inside else name


def _show(scalar: Any) -> Any:
    return scalar.as_py()
