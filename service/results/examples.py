"""Pages of per-example results over all rows of a job, in any order, with bounded memory.

A page is the best `limit + 1` rows behind the cursor. They are found in one pass over the chunks: of each
chunk only its own best rows are kept, then the best of what was kept so far. The order is total (ties go by
row), so pages neither repeat nor skip a row.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.cursors import decode_cursor, encode_cursor, refuse_cursor
from service.errors import ServiceError
from service.results.chunks import RowReader
from service.results.rows import apply_num_kept, take_public
from service.results.schemas import Example, ExamplePage
from service.results.values import list_values

SORT_COLUMNS = ("row", "weight", "score", "noise_score", "label_confidence", "rank")
_MAX_ROW = 2**63 - 2
_CURSOR_TYPES: Mapping[str, type | tuple[type, ...]] = {"sort": str, "null": bool, "value": (int, float), "row": int}


@dataclass(frozen=True, slots=True)
class ExampleQuery:
    """Which rows, in which order. `sort` is a column of SORT_COLUMNS, with `-` before it for descending."""

    sort: str = "row"
    class_name: str | None = None
    kept: bool | None = None
    corrected: bool | None = None
    source: str | None = None
    cursor: str | None = None
    limit: int = 50

    @property
    def column(self) -> str:
        """The column that orders the rows."""
        return self.sort.removeprefix("-")

    @property
    def descending(self) -> bool:
        """Whether the greatest value comes first. Rows without a value come last either way."""
        return self.sort.startswith("-")


@dataclass(frozen=True, slots=True)
class _Keys:
    """The sort key of some rows: (is it null, the value or its negative, the row), smaller first."""

    null: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    row: npt.NDArray[np.int64]

    def first(self, limit: int) -> npt.NDArray[np.int64]:
        """Return the places of the `limit` smallest keys, in order."""
        return np.lexsort((self.row, self.value, self.null))[:limit]

    def take(self, places: npt.NDArray[np.int64]) -> "_Keys":
        """Return the keys at these places."""
        return _Keys(self.null[places], self.value[places], self.row[places])

    def append(self, other: "_Keys") -> "_Keys":
        """Return these keys followed by the other ones."""
        return _Keys(
            np.concatenate([self.null, other.null]),
            np.concatenate([self.value, other.value]),
            np.concatenate([self.row, other.row]),
        )


def list_page(reader: RowReader, query: ExampleQuery, num_kept: int) -> ExamplePage:
    """Return one page of rows, with `keep` and `reason` for the `num_kept` best-ranked rows.

    Raises:
        ServiceError: `invalid_query` or `invalid_cursor`.
    """
    if query.column not in SORT_COLUMNS:
        raise _refuse_sort(query.sort)
    after = _read_cursor(query)
    first_row = int(after.row[0]) + 1 if after is not None and query.sort == "row" else 0
    best: tuple[_Keys, pa.Table] | None = None
    for batch in reader.batches(first_row=first_row):
        found = _select(batch, query, after, num_kept)
        if found is None:
            continue
        best = found if best is None else _merge(best, found, query.limit + 1)
        if query.sort == "row" and len(best[0].row) > query.limit:
            break
    if best is None:
        return ExamplePage(items=[], next_cursor=None)
    keys, table = best
    items = [Example(**values) for values in _read_items(table.slice(0, query.limit), reader, num_kept)]
    more = len(keys.row) > query.limit
    return ExamplePage(items=items, next_cursor=_write_cursor(query, keys, query.limit - 1) if more else None)


def _select(
    batch: pa.RecordBatch, query: ExampleQuery, after: _Keys | None, num_kept: int
) -> tuple[_Keys, pa.Table] | None:
    """Return the first rows of one batch that the query wants, or None where there are none."""
    keys = _read_keys(batch, query)
    wanted = _filter(batch, query, num_kept)
    if after is not None:
        null, value, row = after.null[0], after.value[0], after.row[0]
        same = keys.null == null
        behind = (keys.value > value) | ((keys.value == value) & (keys.row > row))
        wanted &= (keys.null & ~null) | (same & behind)
    places = np.flatnonzero(wanted)
    if not len(places):
        return None
    keys = keys.take(places)
    first = keys.first(query.limit + 1)
    table = pa.Table.from_batches([batch]).take(places[first])
    return keys.take(first), table


def _merge(best: tuple[_Keys, pa.Table], found: tuple[_Keys, pa.Table], limit: int) -> tuple[_Keys, pa.Table]:
    keys = best[0].append(found[0])
    first = keys.first(limit)
    return keys.take(first), pa.concat_tables([best[1], found[1]]).take(first)


def _read_keys(batch: pa.RecordBatch, query: ExampleQuery) -> _Keys:
    column = batch.column(query.column)
    null = column.is_null().to_numpy(zero_copy_only=False)
    value = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    return _Keys(null, -value if query.descending else value, batch.column("row").to_numpy())


def _filter(batch: pa.RecordBatch, query: ExampleQuery, num_kept: int) -> npt.NDArray[np.bool_]:
    wanted = np.ones(batch.num_rows, dtype=np.bool_)
    if query.kept is not None:
        rank = batch.column("rank").fill_null(np.iinfo(np.int64).max).to_numpy(zero_copy_only=False)
        wanted &= (rank < num_kept) == query.kept
    if query.corrected is not None:
        wanted &= batch.column("corrected").to_numpy(zero_copy_only=False) == query.corrected
    if query.class_name is not None:
        wanted &= _equals(batch.column("given_label"), query.class_name)
    if query.source is not None:
        wanted &= _equals(batch.column("source"), query.source)
    return wanted


def _equals(column: "pa.Array[Any]", text: str) -> npt.NDArray[np.bool_]:
    if pa.types.is_integer(column.type):
        try:
            value = pa.scalar(int(text), column.type)
        except (ValueError, OverflowError, pa.ArrowInvalid) as exc:
            raise ServiceError(
                "invalid_query",
                f"class is {text[:80]!r}; the labels of this job are whole numbers.",
                param="class",
            ) from exc
        plain = column.fill_null(0).to_numpy(zero_copy_only=False) == value.as_py()
    else:
        plain = np.asarray(column.fill_null("").to_pylist(), dtype=object) == text
    matches: npt.NDArray[np.bool_] = plain & column.is_valid().to_numpy(zero_copy_only=False)
    return matches


def _read_items(table: pa.Table, reader: RowReader, num_kept: int) -> Iterator[dict[str, object]]:
    for batch in table.combine_chunks().to_batches():
        yield from list_values(take_public(apply_num_kept(batch, num_kept, reader.terms)))


def _read_cursor(query: ExampleQuery) -> _Keys | None:
    if query.cursor is None:
        return None
    fields = decode_cursor(query.cursor, _CURSOR_TYPES)
    if fields["sort"] != query.sort:
        raise ServiceError(
            "invalid_cursor",
            f"cursor belongs to sort={fields['sort']}, but sort is {query.sort}.",
            param="cursor",
            hint="Keep the parameters the same on every page.",
        )
    value, row = fields["value"], fields["row"]
    if not 0 <= row <= _MAX_ROW or not -sys.float_info.max <= value <= sys.float_info.max:
        raise refuse_cursor()
    return _Keys(np.array([fields["null"]]), np.array([float(value)]), np.array([row]))


def _write_cursor(query: ExampleQuery, keys: _Keys, place: int) -> str:
    fields = {
        "sort": query.sort,
        "null": bool(keys.null[place]),
        "value": float(keys.value[place]),
        "row": int(keys.row[place]),
    }
    return encode_cursor(fields)


def _refuse_sort(sort: str) -> ServiceError:
    wanted = ", ".join(SORT_COLUMNS)
    return ServiceError(
        "invalid_query",
        f"sort is {sort[:80]!r}; wanted one of {wanted}, with '-' before it for descending.",
        param="sort",
    )
