"""What a bundle recorded of its rows, read from `rows.parquet` a piece at a time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.storage.arrow_types import ChunkedArray

BATCH_ROWS = 65_536


class RecordedRows:
    """The table `rows.parquet` of a bundle: one row per curated row, in input order.

    Args:
        path: of the file.
        stand_ins: column -> the one that is read in its place.
    """

    def __init__(self, path: Path, stand_ins: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._stand_ins = stand_ins or {}
        footer = pq.ParquetFile(path)
        self.names: tuple[str, ...] = tuple(footer.schema_arrow.names)
        self.num_rows: int = footer.metadata.num_rows

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return whole columns."""
        stored = [self._stand_ins.get(name, name) for name in columns]
        table = pq.read_table(self._path, columns=list(dict.fromkeys(stored)))
        return pa.Table.from_arrays([table.column(name) for name in stored], names=list(columns))

    def read_column(self, name: str) -> ChunkedArray:
        """Return one whole column."""
        return self.read([name]).column(name)

    def open_cursor(self, columns: Sequence[str]) -> "RowCursor":
        """Return a cursor before the first row."""
        return RowCursor(self._path, columns)


class RowCursor:
    """Hands out the recorded rows in order, as many at a time as the reader of the source has."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = pq.ParquetFile(path)
        self._batches: Iterator[pa.RecordBatch] = self._file.iter_batches(BATCH_ROWS, columns=list(columns))
        fields = [self._file.schema_arrow.field(name) for name in columns]
        self._pending = pa.schema(fields).empty_table()

    def take(self, num_rows: int) -> pa.Table:
        """Return the next rows: `num_rows`, or those that are left."""
        while self._pending.num_rows < num_rows and (batch := next(self._batches, None)) is not None:
            more = pa.Table.from_batches([batch]).select(self._pending.schema.names)
            self._pending = pa.concat_tables([self._pending, more])
        taken, self._pending = self._pending.slice(0, num_rows), self._pending.slice(num_rows)
        return taken
