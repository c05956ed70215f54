"""The curated, the trusted and the test rows of a document, read the same way wherever they are looked at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from service.errors import ServiceError
from service.jobs.document import JobDocument
from service.storage.assignment import SECTIONS, assign_rows, choose_trusted_rows
from service.storage.digests import RowsDigest, find_shared, group_rows
from service.storage.findings import Findings
from service.storage.inputs import DataLimits, FeatureKind
from service.storage.label_checks import (
    check_classes,
    check_label_column,
    check_types,
    check_unknown,
    list_label_params,
)
from service.storage.labels import UNLABELLED_CODE, LabelColumn, LabelMap, build_label_map
from service.storage.leakage import Leakage, exclude_leaks, find_leakage
from service.storage.overlaps import NearSearch
from service.storage.role_tables import Codes, DatasetTables, RoleTable, SourceFile
from service.storage.scanning import CONTENT, ID, OnRows, RoleScan, ScanOptions, find_columns, scan_role
from service.storage.sketches import build_sketches, find_obstacle
from service.storage.sources import RoleName, Sources, open_sources

__all__ = [
    "NEAR_FILE",
    "Codes",
    "DatasetScan",
    "DatasetTables",
    "RoleTable",
    "SourceFile",
    "list_files",
    "read_dataset",
    "scan_dataset",
]

NEAR_FILE = "near.npz"


@dataclass(frozen=True, slots=True)
class DatasetScan:
    """Everything one reading of a document's data found out; rows that leak and are left out have code -1."""

    sources: Sources
    roles: dict[RoleName, RoleScan]
    label_map: LabelMap
    codes: dict[RoleName, Codes]
    trusted_rows: Codes | None
    features: dict[str, FeatureKind]
    leakage: Leakage
    votes: Codes | None
    meta_votes: Codes | None


def scan_dataset(document: JobDocument, options: ScanOptions, findings: Findings) -> DatasetScan | None:
    """Read every row of every role once and check what it holds; None where the data cannot be read at all."""
    sources = open_sources(document, options.limits, findings)
    if sources is None:
        return None
    try:
        masks = assign_rows(document, sources, findings)
        if not findings.is_clean:
            return None
        search = _plan_search(document, sum(int(mask.sum()) for mask in masks.values()), options, findings)
        roles = {
            role: scan_role(
                document, role, sources, masks[role], findings=findings, options=options, sketches=search.sketches
            )
            for role in sources.tables
        }
        leakage = _find_leakage(document, roles, search, findings)
    except ServiceError as exc:
        findings.refuse_error(exc, "dataset.uri", repr(document.dataset.uri))
        return None
    return _judge(document, sources, roles, leakage, findings)


def _find_leakage(
    document: JobDocument, roles: dict[RoleName, RoleScan], search: NearSearch, findings: Findings
) -> Leakage:
    if findings.is_clean:
        return find_leakage(document, roles, search)
    # Rows that cannot be read look all alike.
    return find_leakage(document, {}, NearSearch(not_searched="some rows cannot be read"))


def _plan_search(document: JobDocument, num_rows: int, options: ScanOptions, findings: Findings) -> NearSearch:
    obstacle = find_obstacle(document.dataset, document.leakage, num_rows)
    if obstacle is not None:
        if obstacle.is_news:
            findings.notes.append(f"Near duplicates are not looked for: {obstacle.reason}.")
        return NearSearch(not_searched=obstacle.reason)
    if options.near_file is not None and options.near_file.is_file():
        return NearSearch(file=options.near_file)
    on_rows = options.on_rows
    return NearSearch(
        build_sketches(document.dataset, document.leakage),
        options.near_file,
        on_band=(lambda: None) if on_rows is None else (lambda: on_rows(0)),
    )


def read_dataset(
    document: JobDocument, limits: DataLimits, folder: Path, *, on_rows: OnRows | None = None
) -> DatasetTables:
    """Read the data of a job into memory-mapped tables under `folder`, an existing folder of the attempt.

    Inspection looked at the images, so they are decoded here for near duplicates alone, unless the inspection left
    what it found in this folder. `on_rows` hears how many rows were read, batch by batch.

    Raises:
        DataError: the first problems of the data; `problems` lists all of them.
    """
    findings = Findings()
    near_file = folder / NEAR_FILE
    earlier = near_file if near_file.is_file() else None
    options = ScanOptions(limits, decode=False, folder=folder, on_rows=on_rows, near_file=earlier)
    scan = scan_dataset(document, options, findings)
    findings.raise_problems()
    assert scan is not None, "data without a problem has a scan"
    tables = {role: _open_role(scan, role) for role in scan.roles}
    meta = tables.get("meta")
    if scan.trusted_rows is not None:
        meta = _take_trusted(scan, tables["train"])
    used_keys = meta_groups = train_groups = None
    if meta is not None:
        train_keys = scan.roles["train"].keys
        meta_keys = train_keys[scan.trusted_rows] if scan.trusted_rows is not None else scan.roles["meta"].keys
        meta_groups, train_groups = group_rows(meta_keys, train_keys)
        used_keys = np.delete(meta_keys, scan.leakage.trusted.excluded)
    shared = {
        role: find_shared(scan.roles[role].keys, used_keys).count if used_keys is not None and role in scan.roles else 0
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
        meta_train_rows=None if meta is None else _link_trusted(scan),
        meta_given_labels=None if meta is None else _read_given(document, scan),
        meta_groups=meta_groups,
        train_groups=train_groups,
        leakage=scan.leakage,
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


def _link_trusted(scan: DatasetScan) -> Codes:
    """Return for each trusted row the curated row that it is or repeats, a labelled one where possible; -1 none."""
    if scan.trusted_rows is not None:
        return scan.trusted_rows
    keys = scan.roles["train"].keys
    # Labelled rows first, each part in input order: the first match is the one wanted.
    order = np.argsort(scan.codes["train"] < 0, kind="stable")
    distinct, firsts = np.unique(keys[order], return_index=True)
    wanted = scan.roles["meta"].keys
    places = np.minimum(np.searchsorted(distinct, wanted), len(distinct) - 1)
    return np.where(distinct[places] == wanted, order[firsts[places]], -1).astype(np.int64)


def _read_given(document: JobDocument, scan: DatasetScan) -> Codes:
    """Return the class codes of the trusted rows in the column of the given label; -1 where it tells nothing more."""
    if scan.trusted_rows is not None:
        given = scan.codes["train"][scan.trusted_rows]
        is_same = document.meta_label == document.dataset.label
        return np.full_like(given, UNLABELLED_CODE) if is_same else given
    column = scan.roles["meta"].given
    num_rows = len(scan.roles["meta"].rows)
    return np.full(num_rows, UNLABELLED_CODE, dtype=np.int64) if column is None else scan.label_map.encode(column)


def _judge(
    document: JobDocument,
    sources: Sources,
    roles: dict[RoleName, RoleScan],
    leakage: Leakage,
    findings: Findings,
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
    exclude_leaks(leakage, roles, codes, findings)
    check_classes(document, label_map, codes, findings)
    if "test" in columns:
        check_unknown(params["test"], columns["test"], label_map, findings)
    votes, meta_votes = _encode_votes(roles, label_map, trusted_rows)
    return DatasetScan(
        sources,
        roles,
        label_map,
        codes,
        trusted_rows,
        _list_features(sources, roles["train"], findings),
        leakage,
        votes,
        meta_votes,
    )


def _encode_votes(
    roles: dict[RoleName, RoleScan], label_map: LabelMap, trusted_rows: Codes | None
) -> tuple[Codes | None, Codes | None]:
    """Return the votes on the curated rows and on the trusted ones."""
    columns = roles["train"].votes
    if columns is None:
        return None, None
    votes = columns.encode(label_map)
    if trusted_rows is not None:
        return votes, votes[trusted_rows]
    others = roles["meta"].votes if "meta" in roles else None
    return votes, None if others is None else others.encode_like(votes, label_map)


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
    votes = {"train": scan.votes, "meta": scan.meta_votes}.get(role)
    return RoleTable(role, table, scan.codes[role], scan.label_map, names, scan.roles[role].rows_digest, votes)


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
    return RoleTable("meta", table, codes, scan.label_map, train.input_names, digest.get_digest(), scan.meta_votes)
