"""Tables on disk - Parquet, CSV, JSON lines - read in batches, never whole, in row order."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from service.storage.faults import DataError
from service.storage.streams import CODECS, check_decoded_bytes, digest_file, open_file, read_stamp

BATCH_ROWS = 8192
TableFormat = Literal["parquet", "csv", "tsv", "jsonl"]

_PARQUET_MAGIC = b"PAR1"


class AbstractTableSource(ABC):
    """One table on disk: its columns and types, its rows in batches, its digest."""

    format: TableFormat

    def __init__(self, path: Path, *, max_bytes: int | None = None, param: str = "dataset.uri") -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.param = param
        self._stamp = read_stamp(path)
        self.schema, self.num_rows = self._read_schema()
        repeated = sorted({name for name in self.schema.names if self.schema.names.count(name) > 1})
        if repeated:
            raise self.fault(f"names the column {repeated[0]!r} more than once; wanted each name once.")

    @property
    def num_bytes(self) -> int:
        """Size of the file as it lies on disk."""
        return self._stamp[1]

    @cached_property
    def file_digest(self) -> str:
        """SHA-256 of the file as it lies on disk, 64 hexadecimal digits."""
        digest = digest_file(self.path, self.param)
        self._check_stamp()
        return digest

    def batches(self, columns: Sequence[str] | None = None, batch_size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, at most `batch_size` at a time, with `columns` alone (default: all).

        Raises:
            DataError: `unreadable_file`, `data_too_large`, or `file_changed` since the table was opened.
        """
        names = list(self.schema.names if columns is None else columns)
        self._check_stamp()
        num_rows = 0
        for batch in self._read_batches(names, batch_size):
            num_rows += batch.num_rows
            yield batch
        self._check_stamp()
        if num_rows != self.num_rows:
            raise self.fault(f"gave {num_rows} rows, but {self.num_rows} before.")

    def fault(self, what: str, *, line: int | None = None, row: int | None = None) -> DataError:
        """Build the error for this file: its name, and what is wrong with it."""
        return DataError("unreadable_file", f"{self.path.name} {what}", param=self.param, line=line, row=row)

    @abstractmethod
    def _read_schema(self) -> tuple[pa.Schema, int]:
        """Return the columns with their types, true for the whole file, and the number of rows."""

    @abstractmethod
    def _read_batches(self, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the named columns in order."""

    def _check_stamp(self) -> None:
        try:
            unchanged = read_stamp(self.path) == self._stamp
        except OSError:
            unchanged = False
        if not unchanged:
            message = f"{self.path.name} was changed while it was being read."
            raise DataError("file_changed", message, param=self.param, hint="Start the job again.")


class ParquetSource(AbstractTableSource):
    """A Parquet file; its types and row count stand in its footer."""

    format: TableFormat = "parquet"

    def _read_schema(self) -> tuple[pa.Schema, int]:
        with open_file(self.path, self.param) as file:
            if file.read(len(_PARQUET_MAGIC)) != _PARQUET_MAGIC:
                raise self.fault("is no Parquet file: it does not begin with PAR1.")
            file.seek(0)
            try:
                footer = pq.ParquetFile(file)
                schema, metadata = footer.schema_arrow, footer.metadata
            except (pa.ArrowException, OSError) as exc:
                raise self.fault("is a damaged or cut off Parquet file: its footer cannot be read.") from exc
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            num_bytes = sum(group.total_byte_size for group in groups)
            check_decoded_bytes(num_bytes, self.max_bytes, self.path.name, self.param)
            return schema.remove_metadata(), metadata.num_rows

    def _read_batches(self, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        num_bytes = num_rows = 0
        with open_file(self.path, self.param) as file:
            try:
                parquet = pq.ParquetFile(file, pre_buffer=False)
                reader = parquet.iter_batches(batch_size, columns=columns, use_threads=False)
                while (batch := next(reader, None)) is not None:
                    num_bytes += batch.nbytes
                    check_decoded_bytes(num_bytes, self.max_bytes, self.path.name, self.param)
                    num_rows += batch.num_rows
                    yield batch.select(columns)
            except (pa.ArrowException, OSError) as exc:
                raise self.fault(f"is damaged: rows from {num_rows} on cannot be read.", row=num_rows) from exc


def open_table(path: Path, *, max_bytes: int | None = None, param: str = "dataset.uri") -> AbstractTableSource:
    """Open the table at a real path; its format follows from its name, as in `rows.csv.gz`.

    CSV and JSON lines are read once to learn types that hold for the whole file.

    Raises:
        DataError: `unknown_format`, `unreadable_file` (with the line, where there is one), `data_too_large`.
    """
    from service.storage.csv_tables import CsvSource, TsvSource
    from service.storage.json_tables import JsonLinesSource

    sources: dict[str, type[AbstractTableSource]] = {
        ".parquet": ParquetSource,
        ".csv": CsvSource,
        ".tsv": TsvSource,
        ".jsonl": JsonLinesSource,
        ".ndjson": JsonLinesSource,
    }
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in CODECS
    suffix = (suffixes[:-1] if packed else suffixes)[-1:] or [""]
    source = sources.get(suffix[0])
    if source is None or (packed and source is ParquetSource):
        wanted = ".parquet, .csv, .tsv, .jsonl or .ndjson; the text formats also with .gz or .zst"
        raise DataError(
            "unknown_format", f"{path.name} has no known format; wanted a name ending in {wanted}.", param=param
        )
    return source(path, max_bytes=max_bytes, param=param)
