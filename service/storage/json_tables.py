"""JSON lines: one object a line; types that hold for the whole file, and faults told by their line."""

import json
from collections.abc import Iterator

import pyarrow as pa

from service.storage.arrow_types import Field
from service.storage.streams import open_stream
from service.storage.tables import AbstractTableSource, TableFormat

MAX_LINE_BYTES = 64 << 20
NESTED = {b"json": b"nested"}  # marks a column of objects or lists, which is read as their JSON text

_LARGEST_WHOLE = 2**63 - 1


class JsonLinesSource(AbstractTableSource):
    """A file of JSON objects, one a line; a field that is absent is null, a blank line is no row."""

    format: TableFormat = "jsonl"

    def _read_schema(self) -> tuple[pa.Schema, int]:
        kinds: dict[str, set[str]] = {}
        num_rows = 0
        for line, fields in self._read_objects():
            if num_rows == 0 and not fields:
                raise self.fault(f"line {line} is an object without fields.", line=line)
            num_rows += 1
            for name, value in fields.items():
                kinds.setdefault(name, set()).add(_name_kind(value))
        if num_rows == 0:
            raise self.fault("is empty; wanted one JSON object a line.")
        return pa.schema([_build_field(name, seen) for name, seen in kinds.items()]), num_rows

    def _read_batches(self, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([self.schema.field(name) for name in columns])
        pending: list[dict[str, object]] = []
        for _, fields in self._read_objects():
            pending.append(fields)
            if len(pending) == batch_size:
                yield _build_batch(pending, schema)
                pending = []
        if pending:
            yield _build_batch(pending, schema)

    def _read_objects(self) -> Iterator[tuple[int, dict[str, object]]]:
        line = 0
        with open_stream(self.path, max_bytes=self.max_bytes, param=self.param) as stream:
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                line += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise self.fault(f"line {line} is longer than {MAX_LINE_BYTES:,} bytes.", line=line)
                if raw.strip():
                    yield line, self._parse(raw, line)

    def _parse(self, raw: bytes, line: int) -> dict[str, object]:
        try:
            fields = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
        except UnicodeDecodeError as exc:
            raise self.fault(f"line {line} is not UTF-8 text.", line=line) from exc
        except json.JSONDecodeError as exc:
            raise self.fault(f"line {line} is not valid JSON at column {exc.colno}: {exc.msg}.", line=line) from exc
        except (RecursionError, ValueError) as exc:
            raise self.fault(
                f"line {line} cannot be read: too deeply nested, or too long a number.", line=line
            ) from exc
        if not isinstance(fields, dict):
            raise self.fault(f"line {line} is no JSON object; wanted {{...}} on every line.", line=line)
        return fields


def _name_kind(value: object) -> str:
    kind = "nested"
    if value is None:
        kind = "null"
    elif isinstance(value, bool):
        kind = "bool"
    elif isinstance(value, int):
        kind = "whole" if -_LARGEST_WHOLE <= value <= _LARGEST_WHOLE else "text"
    elif isinstance(value, float):
        kind = "decimal"
    elif isinstance(value, str):
        kind = "text"
    return kind


def _build_field(name: str, kinds: set[str]) -> Field:
    """Return the column's type: the narrowest one for all its values; text where kinds are mixed."""
    present = kinds - {"null"}
    if "nested" in present:
        return pa.field(name, pa.string(), metadata=NESTED)
    if not present:
        return pa.field(name, pa.null())
    if present == {"bool"}:
        return pa.field(name, pa.bool_())
    if present == {"whole"}:
        return pa.field(name, pa.int64())
    return pa.field(name, pa.float64() if present <= {"whole", "decimal"} else pa.string())


def _build_batch(objects: list[dict[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values = [fields.get(field.name) for fields in objects]
        if pa.types.is_string(field.type):
            values = [_write_text(value) for value in values]
        elif pa.types.is_float64(field.type):
            values = [None if value is None else float(value) for value in values]  # type: ignore[arg-type]
        arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _write_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        # A lone half of a surrogate pair is no text that UTF-8 could hold.
        return value if value is None else value.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
