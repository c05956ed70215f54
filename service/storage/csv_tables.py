"""CSV and TSV tables: types that hold for the whole file, and faults told by their line."""

import csv
import io
from collections.abc import Iterator
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from service.storage.arrow_types import Array
from service.storage.streams import OnBytes, open_stream
from service.storage.tables import AbstractTableSource, TableFormat

BLOCK_BYTES = 8 << 20

# Spellings of "no value" in a column whose other values are numbers.
MISSING_NUMBERS = pa.array(["", "NA", "N/A", "#N/A", "nan", "NaN", "NAN", "null", "NULL", "None", "?"])
_WHOLE = r"^[+-]?(0|[1-9][0-9]{0,17})$"
_DECIMAL = r"^[+-]?(([0-9]|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INFINITE = r"^[+-]?(inf|Inf|INF|infinity|Infinity)$"
_LONG_WHOLE = r"^[+-]?[0-9]{19,}$"

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


class ColumnType:
    """The narrowest type that fits every value of a text column seen so far."""

    def __init__(self) -> None:
        self._has_text = self._has_decimals = self._has_whole = self._has_missing_words = False

    def widen(self, values: Array) -> None:
        """Take more values into account."""
        if self._has_text:
            return
        trimmed = pc.ascii_trim_whitespace(values.drop_null())
        missing = pc.is_in(trimmed, value_set=MISSING_NUMBERS)
        self._has_missing_words |= bool(pc.any(missing).as_py())
        numbers = trimmed.filter(pc.invert(missing))
        whole = pc.match_substring_regex(numbers, _WHOLE)
        self._has_whole |= bool(pc.any(whole).as_py())
        others = numbers.filter(pc.invert(whole))
        if len(others) == 0:
            return
        decimal = pc.or_(pc.match_substring_regex(others, _DECIMAL), pc.match_substring_regex(others, _INFINITE))
        long_whole = pc.match_substring_regex(others, _LONG_WHOLE)
        if pc.all(pc.and_not(decimal, long_whole)).as_py():
            self._has_decimals = True
        else:
            self._has_text = True

    def get_type(self) -> pa.DataType:
        """Return the Arrow type: whole numbers, decimals, text, or null where every value is missing."""
        if self._has_text:
            return pa.string()
        if self._has_decimals:
            return pa.float64()
        if self._has_whole:
            return pa.int64()
        return pa.string() if self._has_missing_words else pa.null()


class CsvSource(AbstractTableSource):
    """A comma-separated table with a header line, quoted by RFC 4180."""

    format: TableFormat = "csv"
    delimiter = ","

    def _read_schema(self) -> tuple[pa.Schema, int]:
        names = self._read_header()
        types = {name: ColumnType() for name in names}
        num_rows = num_quotes = 0

        def count_quotes(chunk: bytes) -> None:
            nonlocal num_quotes
            num_quotes += chunk.count(b'"')

        for batch in self._read_text(names, count_quotes):
            num_rows += batch.num_rows
            for name in names:
                types[name].widen(batch.column(name))
        # Arrow takes the rest of the file for one value where a quote is never closed, without a word.
        if num_quotes % 2 and (found := self._find_fault()) is not None:
            raise self.fault(f"line {found[0]} {found[1]}.", line=found[0])
        return pa.schema([(name, types[name].get_type()) for name in names]), num_rows

    def _read_batches(self, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([self.schema.field(name) for name in columns])
        for block in self._read_text(columns):
            converted = [_convert(block.column(field.name), field.type) for field in schema]
            batch = pa.RecordBatch.from_arrays(converted, schema=schema)
            for start in range(0, batch.num_rows, batch_size):
                yield batch.slice(start, batch_size)

    def _read_header(self) -> list[str]:
        with open_stream(self.path, max_bytes=self.max_bytes, param=self.param) as stream:
            try:
                names = next(csv.reader(_decode_lines(stream), delimiter=self.delimiter, strict=True), None)
            except (_LineNotTextError, csv.Error) as exc:
                raise self.fault("line 1 is no header of column names in UTF-8.", line=1) from exc
        if not names:
            raise self.fault("is empty; wanted a header line and rows.")
        if len(names) == 1 and (mistaken := _find_other_delimiter(names[0], self.delimiter)) is not None:
            own, other = _DELIMITERS[self.delimiter], _DELIMITERS[mistaken]
            suffix = " (or a file name ending in .tsv)" if mistaken == "\t" else ""
            message = (
                f"line 1 is one name with {other} in it, {names[0][:60]!r}; wanted {own} between the columns{suffix}."
            )
            raise self.fault(message, line=1)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise self.fault(f"line 1 names the column {repeated[0]!r} more than once; wanted each name once.", line=1)
        return names

    def _read_text(self, columns: list[str], on_bytes: OnBytes | None = None) -> Iterator[pa.RecordBatch]:
        """Yield blocks of rows with every value as text; an unquoted empty value is null."""
        try:
            with open_stream(self.path, max_bytes=self.max_bytes, param=self.param, on_bytes=on_bytes) as stream:
                reader = pa_csv.open_csv(
                    stream,
                    pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
                    pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                    pa_csv.ConvertOptions(
                        column_types=dict.fromkeys(columns, pa.string()),
                        include_columns=columns,
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                    ),
                )
                while (batch := next(reader, None)) is not None:
                    yield batch
        except pa.ArrowInvalid as exc:
            found = self._find_fault()
            if found is None:
                raise self.fault("cannot be read as CSV.") from exc
            raise self.fault(f"line {found[0]} {found[1]}.", line=found[0]) from exc

    def _find_fault(self) -> tuple[int, str] | None:
        """Read the file again, slowly, to tell the first line at fault and what is wrong with it."""
        line = 1
        with open_stream(self.path, max_bytes=self.max_bytes, param=self.param) as stream:
            lines = _decode_lines(stream)
            old_limit = csv.field_size_limit(BLOCK_BYTES)
            try:
                reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
                num_columns = len(next(reader))
                line = reader.line_num + 1
                for values in reader:
                    if values and len(values) != num_columns:
                        return line, f"has {len(values)} values; the header has {num_columns}"
                    line = reader.line_num + 1
            except _LineNotTextError as exc:
                return exc.line, "is not UTF-8 text"
            except csv.Error:
                return line, "begins a quoted value that is malformed, never closed, or too long"
            finally:
                csv.field_size_limit(old_limit)
        return None


class TsvSource(CsvSource):
    """A tab-separated table with a header line."""

    format: TableFormat = "tsv"
    delimiter = "\t"


class _LineNotTextError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


def _find_other_delimiter(header: str, own: str) -> str | None:
    """Return what else a header that is one name seems to be divided by."""
    counts = {mark: header.count(mark) for mark in _DELIMITERS if mark != own}
    most = max(counts, key=lambda mark: counts[mark])
    return most if counts[most] else None


def _decode_lines(stream: io.BufferedReader) -> Iterator[str]:
    for number in count(1):
        raw = stream.readline(2 * BLOCK_BYTES)
        if not raw:
            return
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            raise _LineNotTextError(number) from exc


def _convert(values: Array, kind: pa.DataType) -> Array:
    """Turn text into the column's type; the types were learnt from these very values."""
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    if pa.types.is_string(kind):
        return values
    trimmed = pc.ascii_trim_whitespace(values)
    missing = pc.is_in(trimmed, value_set=MISSING_NUMBERS)
    numbers = pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    converted: Array = pc.cast(pc.replace_substring_regex(numbers, r"^\+", ""), kind)
    return converted
