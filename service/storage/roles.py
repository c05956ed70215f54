"""The curated, the trusted and the test rows of a document, read the same way wherever they are looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.errors import ServiceError
from service.jobs.document import JobDocument
from service.storage.arrow_types import Array, ChunkedArray
from service.storage.assignment import SECTIONS, assign_rows, choose_trusted_rows
from service.storage.digests import RowsDigest, find_shared
from service.storage.findings import Findings
from service.storage.inputs import DataLimits, FeatureKind
from service.storage.label_checks import (
    check_classes,
    check_label_column,
    check_types,
    check_unknown,
    list_label_params,
)
from service.storage.labels import LabelColumn, LabelMap, build_label_map
from service.storage.scanning import (
    CONTENT,
    ID,
    SOURCE,
    SOURCE_ROW,
    OnRows,
    RoleScan,
    ScanOptions,
    find_columns,
    scan_role,
)
from service.storage.sources import RoleName, Sources, open_sources

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DatasetScan:
    """Everything one reading of a document's data found out."""

    sources: Sources
    roles: dict[RoleName, RoleScan]
    label_map: LabelMap
    codes: dict[RoleName, Codes]
    trusted_rows: Codes | None
    features: dict[str, FeatureKind]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the data set, as the manifest names it."""

    uri: str
    format: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class RoleTable:
    """The rows of one role, memory-mapped for random access; everything in input order.

    `labels` are class codes, -1 where unlabelled: the given labels of the curated rows, the trusted labels of
    the meta set. `table` holds the input columns; text is string, an image its encoded bytes, a numeric feature
    float64 with null for missing, a categorical feature string.
    """

    role: RoleName
    table: pa.Table
    labels: Codes
    label_map: LabelMap
    input_names: tuple[str, ...]
    rows_digest: str

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def inputs(self) -> pa.Table:
        """The input columns under their own names."""
        return self.table.select(list(self.input_names))

    @property
    def ids(self) -> ChunkedArray:
        """The ids, int64 or string; the row numbers where the document names no id column."""
        return self.table.column(ID)

    @property
    def source(self) -> ChunkedArray:
        """Where each example came from; null where the document names no source column."""
        return self.table.column(SOURCE)

    @property
    def content_sha256(self) -> ChunkedArray:
        """The digest of each example's inputs, 64 hexadecimal digits."""
        return self.table.column(CONTENT)

    @property
    def source_rows(self) -> ChunkedArray:
        """The row number of each example in its own file."""
        return self.table.column(SOURCE_ROW)

    @property
    def given_labels(self) -> Array:
        """The labels in the type of the data, null where unlabelled."""
        return self.label_map.decode(self.labels)


@dataclass(frozen=True, slots=True)
class DatasetTables:
    """The data of a job, ready to train on.

    `meta` is None for `meta.self` and for no meta set. `trusted_rows` are the curated rows that are trusted too
    (`meta.fraction`); they stay among the curated rows. `features` leaves out columns without any value.
    """

    kind: Literal["text", "image", "features"]
    features: Mapping[str, FeatureKind]
    label_map: LabelMap
    train: RoleTable
    meta: RoleTable | None
    test: RoleTable | None
    trusted_rows: Codes
    files: tuple[SourceFile, ...]
    num_meta_in_train: int
    num_meta_in_test: int
    notes: tuple[str, ...]


def scan_dataset(document: JobDocument, options: ScanOptions, findings: Findings) -> DatasetScan | None:
    """Read every row of every role once and check what it holds; None where the data cannot be read at all."""
    sources = open_sources(document, options.limits, findings)
    if sources is None:
        return None
    try:
        masks = assign_rows(document, sources, findings)
        if not findings.is_clean:
            return None
        roles = {
            role: scan_role(document, role, sources, masks[role], findings=findings, options=options)
            for role in sources.tables
        }
    except ServiceError as exc:
        findings.refuse_error(exc, "dataset.uri", repr(document.dataset.uri))
        return None
    return _judge(document, sources, roles, findings)


def read_dataset(
    document: JobDocument, limits: DataLimits, folder: Path, *, on_rows: OnRows | None = None
) -> DatasetTables:
    """Read the data of a job into memory-mapped tables under `folder`, an existing empty folder of the attempt.

    Images are not decoded here: inspection did that. `on_rows` hears how many rows were read, batch by batch.

    Raises:
        DataError: the first problems of the data; `problems` lists all of them.
    """
    findings = Findings()
    scan = scan_dataset(document, ScanOptions(limits, decode=False, folder=folder, on_rows=on_rows), findings)
    findings.raise_problems()
    assert scan is not None, "data without a problem has a scan"
    tables = {role: _open_role(scan, role) for role in scan.roles}
    meta = tables.get("meta")
    if scan.trusted_rows is not None:
        meta = _take_trusted(scan, tables["train"])
    meta_keys = None
    if meta is not None:
        train_keys = scan.roles["train"].keys
        meta_keys = train_keys[scan.trusted_rows] if scan.trusted_rows is not None else scan.roles["meta"].keys
    shared = {
        role: find_shared(scan.roles[role].keys, meta_keys).count if meta_keys is not None and role in scan.roles else 0
        for role in SECTIONS
    }
    return DatasetTables(
        kind=scan.sources.inputs.kind,
        features=scan.features,
        label_map=scan.label_map,
        train=tables["train"],
        meta=meta,
        test=tables.get("test"),
        trusted_rows=np.empty(0, dtype=np.int64) if scan.trusted_rows is None else scan.trusted_rows,
        files=list_files(scan),
        num_meta_in_train=shared["train"],
        num_meta_in_test=shared["test"],
        notes=tuple(findings.notes),
    )


def list_files(scan: DatasetScan) -> tuple[SourceFile, ...]:
    """Return every file that was read, each once, with its digest."""
    tables = {scan.sources.uris[role]: table for role, table in scan.sources.tables.items()}
    return tuple(
        SourceFile(uri, table.format, table.num_rows, table.num_bytes, table.file_digest)
        for uri, table in tables.items()
    )


def _judge(
    document: JobDocument, sources: Sources, roles: dict[RoleName, RoleScan], findings: Findings
) -> DatasetScan | None:
    params = list_label_params(document)
    columns: dict[RoleName, LabelColumn] = {role: scan.labels for role, scan in roles.items()}
    trusted = roles["train"].trusted
    if trusted is not None:
        columns["meta"] = trusted
    are_labels = True
    for role, column in columns.items():
        file_role: RoleName = role if role in roles else "train"
        table = roles[file_role].table
        named = find_columns(document, file_role, table.schema)
        name = named.label if file_role == role else named.trusted or named.label
        are_labels &= check_label_column(params[role], name, table.path.name, column, findings)
    if not are_labels or not check_types(params, columns, findings):
        return None
    label_map = build_label_map(column for role, column in columns.items() if role != "test")
    codes = {role: label_map.encode(column) for role, column in columns.items()}
    trusted_rows = None
    if trusted is not None and document.meta is not None and document.meta.fraction is not None:
        seed = document.training.seed
        trusted_rows = choose_trusted_rows(codes["train"] >= 0, codes["meta"], document.meta.fraction, seed)
        codes["meta"] = codes["meta"][trusted_rows]
    check_classes(document, label_map, codes, findings)
    if "test" in columns:
        check_unknown(params["test"], columns["test"], label_map, findings)
    return DatasetScan(
        sources, roles, label_map, codes, trusted_rows, _list_features(sources, roles["train"], findings)
    )


def _list_features(sources: Sources, train: RoleScan, findings: Findings) -> dict[str, FeatureKind]:
    """Return the features that hold any value among the curated rows; say which do not."""
    empty = [name for name in sources.inputs.features if train.counts.missing[name] == len(train.rows)]
    features = {name: kind for name, kind in sources.inputs.features.items() if name not in empty}
    for name in empty:
        findings.notes.append(f"Column {name!r} has no value in any curated row; it is left out.")
    if sources.inputs.kind == "features" and not features:
        wanted = "at least one column with values"
        message = f"dataset.features: every column is empty in the curated rows; wanted {wanted}."
        findings.refuse("dataset.features", "empty columns alone", wanted, message)
    return features


def _open_role(scan: DatasetScan, role: RoleName) -> RoleTable:
    path = scan.roles[role].path
    assert path is not None, "the rows were written while they were scanned"
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    names = tuple(scan.features) if scan.sources.inputs.kind == "features" else scan.sources.inputs.names
    return RoleTable(role, table, scan.codes[role], scan.label_map, names, scan.roles[role].rows_digest)


def _take_rows(table: pa.Table, rows: Codes) -> pa.Table:
    """Return sorted rows of a mapped table batch by batch: `Table.take` would copy whole columns first."""
    taken, start = [], 0
    for batch in table.to_batches():
        first, last = np.searchsorted(rows, [start, start + batch.num_rows])
        if first < last:
            taken.append(batch.take(rows[first:last] - start))
        start += batch.num_rows
    return pa.Table.from_batches(taken, schema=table.schema)


def _take_trusted(scan: DatasetScan, train: RoleTable) -> RoleTable:
    """Return the trusted share of the curated rows as a meta set of its own."""
    assert scan.trusted_rows is not None, "asked for only where a share was taken"
    table = _take_rows(train.table, scan.trusted_rows)
    codes = scan.codes["meta"]
    digest = RowsDigest()
    contents = [bytes.fromhex(str(content)) for content in table.column(CONTENT).to_pylist()]
    digest.add(contents, table.column(ID).to_pylist(), scan.label_map.decode(codes).to_pylist())
    return RoleTable("meta", table, codes, scan.label_map, train.input_names, digest.get_digest())
