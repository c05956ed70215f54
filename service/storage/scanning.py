"""One pass over the rows of one role: labels, inputs, ids and digests, optionally written for random access."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.jobs.document import JobDocument
from service.storage.arrow_types import Array
from service.storage.digests import Keys, RowsDigest, build_id_keys, build_keys
from service.storage.findings import Findings
from service.storage.inputs import DataLimits, InputColumns, InputCounts, InputReader, list_input_names
from service.storage.labels import LabelColumn, find_label_type
from service.storage.sketches import AbstractSketches
from service.storage.sources import RoleName, Sources
from service.storage.tables import AbstractTableSource
from service.storage.votes import VoteColumns, holds_votes

SOURCE_ROW, ID, SOURCE, CONTENT = "#row", "#id", "#source", "#content_sha256"

OnRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class RoleColumns:
    """Which column of a role's file is what; None where the file or the role has none."""

    label: str
    trusted: str | None
    given: str | None
    id: str | None
    source: str | None
    votes: tuple[str, ...] = ()

    def list_names(self, inputs: InputColumns) -> list[str]:
        """Return every column to be read, each once."""
        named = (self.label, self.trusted, self.given, self.id, self.source, *self.votes)
        return list(dict.fromkeys([*list_input_names(inputs), *(name for name in named if name is not None)]))


@dataclass(frozen=True, slots=True)
class RoleScan:
    """What one pass over a role's rows found; arrays have one entry a row, in input order."""

    role: RoleName
    table: AbstractTableSource
    rows: npt.NDArray[np.int64]
    labels: LabelColumn
    trusted: LabelColumn | None
    given: LabelColumn | None
    votes: VoteColumns | None
    keys: Keys
    id_keys: Keys
    id_type: pa.DataType
    counts: InputCounts
    rows_digest: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How rows are read: the limits, whether images are decoded, where tables go, who hears of progress.

    `near_file`: where one reading leaves its near duplicates for the next.
    """

    limits: DataLimits
    decode: bool = True
    folder: Path | None = None
    on_rows: OnRows | None = None
    near_file: Path | None = None


def find_columns(document: JobDocument, role: RoleName, schema: pa.Schema) -> RoleColumns:
    """Return the columns of a role; ids and sources of another file are read where it has them."""
    dataset, meta = document.dataset, document.meta
    label = {"train": dataset.label, "meta": document.meta_label, "test": document.test_label}[role]
    takes_share = role == "train" and meta is not None and meta.fraction is not None
    given_id = dataset.id if dataset.id in schema.names else None
    source = dataset.source if dataset.source in schema.names else None
    return RoleColumns(
        label,
        trusted=document.meta_label if takes_share else None,
        given=_find_given(document, schema) if role == "meta" else None,
        id=given_id,
        source=source,
        votes=_find_votes(document, role, schema),
    )


def _find_votes(document: JobDocument, role: RoleName, schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns of votes: those of the curated rows, and of the trusted ones where their file has them all."""
    names = document.dataset.votes or ()
    if role == "train":
        return names
    has_all = all(name in schema.names and holds_votes(schema.field(name), alone=len(names) == 1) for name in names)
    return names if role == "meta" and has_all else ()


def _find_given(document: JobDocument, schema: pa.Schema) -> str | None:
    """Return the column with the given labels of the trusted rows, where it is there and another than the trusted."""
    name = document.dataset.label
    is_there = name != document.meta_label and name in schema.names
    return name if is_there and find_label_type(schema.field(name).type) is not None else None


def scan_role(
    document: JobDocument,
    role: RoleName,
    sources: Sources,
    mask: npt.NDArray[np.bool_],
    *,
    findings: Findings,
    options: ScanOptions,
    sketches: AbstractSketches[Any] | None = None,
) -> RoleScan:
    """Read the rows of one role once, in order."""
    table = sources.tables[role]
    columns = find_columns(document, role, table.schema)
    scanner = _RoleScanner(columns, table, InputReader(
        sources.inputs, options.limits, table.path, findings, decode=options.decode, sketches=sketches
    ), findings)  # fmt: skip
    path = None
    if options.folder is None:
        for batch in scanner.read(mask, options.on_rows):
            del batch
    else:
        path = options.folder / f"{role}.arrow"
        write_batches(scanner.read(mask, options.on_rows), path, scanner.build_schema(sources.inputs))
    return scanner.finish(role, path)


def write_batches(batches: Iterator[pa.RecordBatch], path: Path, schema: pa.Schema) -> None:
    """Write batches to an Arrow file, complete under its name or not there at all."""
    part = path.with_suffix(".part")
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    part.replace(path)


class _RoleScanner:
    """Gathers what one pass over a role's rows finds."""

    def __init__(
        self, columns: RoleColumns, table: AbstractTableSource, reader: InputReader, findings: Findings
    ) -> None:
        self._columns = columns
        self._table = table
        self._reader = reader
        self._findings = findings
        self._labels = LabelColumn(table.schema.field(columns.label).type)
        self._trusted = LabelColumn(table.schema.field(columns.trusted).type) if columns.trusted else None
        self._given = LabelColumn(table.schema.field(columns.given).type) if columns.given else None
        self._votes = VoteColumns(columns.votes, table.schema, table.path.name, findings) if columns.votes else None
        self._id_type = _find_id_type(table.schema.field(columns.id).type) if columns.id else pa.int64()
        self._rows: list[npt.NDArray[np.int64]] = []
        self._keys: list[Keys] = []
        self._id_keys: list[Keys] = []
        self._digest = RowsDigest()

    def build_schema(self, inputs: InputColumns) -> pa.Schema:
        """Return the columns of the batches that `read` yields."""
        kinds: dict[str, pa.DataType] = {
            "text": pa.large_string(),
            "image": pa.large_binary(),
            "numeric": pa.float64(),
            "categorical": pa.string(),
        }
        fields: list[tuple[str, pa.DataType]] = [(SOURCE_ROW, pa.int64()), (ID, self._id_type)]
        fields += [(SOURCE, pa.string()), (CONTENT, pa.string())]
        fields += [(name, kinds[inputs.features.get(name, inputs.kind)]) for name in list_input_names(inputs)]
        return pa.schema(fields)

    def read(self, mask: npt.NDArray[np.bool_], on_rows: OnRows | None) -> Iterator[pa.RecordBatch]:
        """Yield the role's rows with their inputs in the common form."""
        names = self._columns.list_names(self._reader.inputs)
        schema = self.build_schema(self._reader.inputs)
        start = num_rows = 0
        for whole in self._table.batches(names):
            chosen = mask[start : start + whole.num_rows]
            rows = np.flatnonzero(chosen).astype(np.int64) + start
            start += whole.num_rows
            if len(rows) == 0:
                continue
            batch = whole if len(rows) == whole.num_rows else whole.filter(pa.array(chosen))
            yield self._take_in(batch, rows, num_rows, schema)
            num_rows += batch.num_rows
            if on_rows is not None:
                on_rows(batch.num_rows)

    def finish(self, role: RoleName, path: Path | None) -> RoleScan:
        """Return what the pass found."""
        return RoleScan(
            role=role,
            table=self._table,
            rows=np.concatenate([np.empty(0, dtype=np.int64), *self._rows]),
            labels=self._labels,
            trusted=self._trusted,
            given=self._given,
            votes=self._votes,
            keys=np.concatenate([build_keys([]), *self._keys]),
            id_keys=np.concatenate([build_keys([]), *self._id_keys]),
            id_type=self._id_type,
            counts=self._reader.counts,
            rows_digest=self._digest.get_digest(),
            path=path,
        )

    def _take_in(
        self, batch: pa.RecordBatch, rows: npt.NDArray[np.int64], first: int, schema: pa.Schema
    ) -> pa.RecordBatch:
        inputs, digests = self._reader.read(batch, rows)
        labels = batch.column(self._columns.label)
        self._labels.add(labels, rows)
        if self._trusted is not None and self._columns.trusted is not None:
            self._trusted.add(batch.column(self._columns.trusted), rows)
        if self._given is not None and self._columns.given is not None:
            self._given.add(batch.column(self._columns.given), rows)
        if self._votes is not None:
            self._votes.add(batch, rows)
        ids = self._read_ids(batch, rows, first)
        id_values = ids.to_pylist()
        self._rows.append(rows)
        self._keys.append(build_keys(digests))
        if self._columns.id is not None:
            self._id_keys.append(build_id_keys(id_values))
        self._digest.add(digests, id_values, labels.to_pylist())
        contents = pa.array([digest.hex() for digest in digests], pa.string())
        return pa.RecordBatch.from_arrays(
            [pa.array(rows), ids, self._read_sources(batch), contents, *inputs.columns], schema=schema
        )

    def _read_ids(self, batch: pa.RecordBatch, rows: npt.NDArray[np.int64], first: int) -> Array:
        if self._columns.id is None:
            return pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
        ids: Array = pc.cast(batch.column(self._columns.id), self._id_type)
        if ids.null_count:
            nulls = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
            where = f"column {self._columns.id!r} of {self._table.path.name}"
            row = int(rows[nulls[0]])
            reason, wanted = "the id is missing", "an id in every row"
            self._findings.refuse_row("dataset.id", where, row, reason=reason, wanted=wanted, count=len(nulls))
        return ids

    def _read_sources(self, batch: pa.RecordBatch) -> Array:
        if self._columns.source is None:
            return pa.nulls(batch.num_rows, pa.string())
        values = batch.column(self._columns.source)
        plain = pc.cast(values, values.type.value_type) if pa.types.is_dictionary(values.type) else values
        sources: Array = pc.cast(plain, pa.string())
        return sources


def _find_id_type(kind: pa.DataType) -> pa.DataType:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.int64() if pa.types.is_integer(inner) and not pa.types.is_uint64(inner) else pa.string()
