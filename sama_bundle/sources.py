"""A data set as someone holds it - a frame, a Hugging Face data set, any indexed one - as rows to be compared."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sama_bundle.comparison import FoundRows, compare_rows
from sama_bundle.errors import READ_ERRORS, UnreadableSourceError
from sama_bundle.reading import Content, ExampleReader, Positions, find_curated, list_columns
from sama_bundle.recorded import RecordedRows
from service.jobs.document import JobDocument
from service.storage.tables import BATCH_ROWS

Read = Callable[[int], Content]


@dataclass(frozen=True, slots=True)
class Columns:
    """A source whose columns can be read: its name in a message, their names, and its rows in batches, in order."""

    name: str
    names: Sequence[str]
    read: Callable[[list[str]], Iterable[pa.RecordBatch]]


def locate_by_columns(document: JobDocument, recorded: RecordedRows, source: Columns) -> Positions:
    """Compare a source by its columns; return where in it each curated row stands.

    A source that has the columns of the document's splits may be the whole file; without them every row counts as
    curated.

    Raises:
        DifferentSourceError: naming the first row that differs.
        UnreadableSourceError: a column is missing or cannot be read.
    """
    names = list_columns(document, source.names)
    return compare_rows(recorded, _read_columns(document, source, names), source.name)


def locate_by_reading(
    document: JobDocument, recorded: RecordedRows, num_rows: int, read: Read | None, ids: Sequence[object] | None
) -> Positions:
    """Compare a source of `num_rows` curated rows by what `read` gives for each of them, by their ids, or by both.

    Raises:
        DifferentSourceError: naming the first row that differs.
        UnreadableSourceError: there is neither `read` nor `ids`, they do not fit, or `read` raises one of READ_ERRORS.
    """
    if read is None and ids is None:
        raise UnreadableSourceError(
            "Nothing shows what the examples of this data set are made of, and its length alone proves little.",
            param="read",
            hint="Give read=, a function from a row number to its text, image bytes or mapping of features, or ids=, "
            "the id of each row (their numbers where the data has no ids).",
        )
    if ids is not None and len(ids) != num_rows:
        raise UnreadableSourceError(f"ids has {len(ids)} entries for {num_rows} rows; wanted one a row.", param="ids")
    return compare_rows(recorded, _read_rows(document, num_rows, read, ids), "the data set")


def _read_columns(document: JobDocument, source: Columns, names: list[str]) -> Iterator[FoundRows]:
    reader, start = ExampleReader(document), 0
    for batch in source.read(names):
        chosen = find_curated(document, batch)
        if len(chosen):
            positions = chosen + start
            curated = batch if len(chosen) == batch.num_rows else batch.take(chosen)
            yield FoundRows(positions, reader.read(curated, positions))
        start += batch.num_rows


def _read_rows(
    document: JobDocument, num_rows: int, read: Read | None, ids: Sequence[object] | None
) -> Iterator[FoundRows]:
    reader = ExampleReader(document)
    for start in range(0, num_rows, BATCH_ROWS):
        positions = np.arange(start, min(start + BATCH_ROWS, num_rows), dtype=np.int64)
        columns = {}
        if read is not None:
            columns = reader.read_contents([_read_row(read, row, num_rows) for row in positions.tolist()], positions)
        if ids is not None:
            columns["id"] = _build_ids(ids, positions)
        yield FoundRows(positions, columns)


def _read_row(read: Read, row: int, num_rows: int) -> Content:
    try:
        return read(row)
    except READ_ERRORS as exc:
        message = (
            f"read raised {type(exc).__name__} for row {row}: {exc}; wanted the content of each of {num_rows:,} rows."
        )
        raise UnreadableSourceError(message, param="read") from exc


def _build_ids(ids: Sequence[object], positions: Positions) -> "pa.Array[pa.Scalar[pa.DataType]]":
    given = [ids[row] for row in positions.tolist()]
    plain = [value.item() if isinstance(value, np.generic) else value for value in given]
    for row, value in zip(positions.tolist(), plain, strict=True):
        if not isinstance(value, int | str) or isinstance(value, bool):
            raise UnreadableSourceError(f"ids has {value!r} for row {row}; wanted a whole number or text.", param="ids")
    return pa.array(plain if len({type(value) for value in plain}) == 1 else [str(value) for value in plain])
