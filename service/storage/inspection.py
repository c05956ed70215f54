"""Inspection: open the data of a document, look at every row, and say everything at once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.datasets.schemas import (
    ClassReport,
    ColumnReport,
    DuplicateReport,
    EstimateReport,
    FileReport,
    InspectionReport,
    LeakageReport,
    RoleReport,
    VoteReport,
)
from service.errors import ServiceError
from service.jobs.document import BASELINES, JobDocument, document_digest
from service.storage.digests import find_repeats
from service.storage.estimates import estimate_job
from service.storage.findings import Findings
from service.storage.inputs import DataLimits
from service.storage.label_checks import count_classes
from service.storage.leakage import Leakage, write_notes
from service.storage.roles import NEAR_FILE, DatasetScan, scan_dataset
from service.storage.roots import resolve_folder, resolve_path
from service.storage.scanning import OnRows, RoleScan, ScanOptions, find_columns
from service.storage.sources import RoleName, list_uris
from service.storage.votes import FEWEST_JUDGES, count_votes, write_note


def inspect_dataset(
    document: JobDocument, limits: DataLimits, *, on_rows: OnRows | None = None, folder: Path | None = None
) -> InspectionReport:
    """Read every row the document names and report on it; what is wrong is in `problems`, nothing is raised.

    `on_rows` hears how many rows were read, batch by batch. In `folder`, the near duplicates that are found are left
    for `read_dataset`.
    """
    findings = Findings()
    _check_model_folder(document, limits, findings)
    near_file = None if folder is None else folder / NEAR_FILE
    scan = scan_dataset(document, ScanOptions(limits, on_rows=on_rows, near_file=near_file), findings)
    parts: dict[str, object] = {}
    if scan is not None:
        _check_ids(document, scan, findings)
        findings.notes += [*_note_inputs(document, scan), *_note_leakage(scan), *_note_votes(document, scan)]
        parts = {
            "features": scan.features,
            "files": tuple(_report_files(document, scan)),
            "roles": tuple(_report_roles(scan)),
            "classes": tuple(_report_classes(scan)),
            "duplicates": tuple(_report_duplicates(scan.leakage)),
            "leakage": _report_leakage(scan.leakage),
            "votes": _report_votes(scan),
            "estimate": _estimate(document, scan),
        }
    return InspectionReport.model_validate({
        "document_digest": document_digest(document),
        "kind": document.dataset.kind,
        "notes": tuple(findings.notes),
        "problems": tuple(findings.list_problems()),
        **parts,
    })  # fmt: skip


def find_file_problems(document: JobDocument, limits: DataLimits, findings: Findings) -> None:
    """Find the files and folders of a document that are missing or not allowed, without reading any of them."""
    params = {"train": "dataset.uri", "meta": "meta.uri", "test": "test.uri"}
    for uri, role in {uri: role for role, uri in reversed(list_uris(document).items())}.items():
        try:
            resolve_path(uri, limits.data_roots, param=params[role])
        except ServiceError as exc:
            findings.refuse_error(exc, params[role], repr(uri))
    _check_model_folder(document, limits, findings)


def _check_model_folder(document: JobDocument, limits: DataLimits, findings: Findings) -> None:
    name = document.model.name
    if not name.startswith("hf:"):
        return
    try:
        folder = resolve_folder(name.removeprefix("hf:"), limits.data_roots, param="model.name")
    except ServiceError as exc:
        findings.refuse_error(exc, "model.name", repr(name))
        return
    if not (folder / "config.json").is_file():
        wanted = "a folder with a config.json, as transformers writes it"
        findings.refuse(
            "model.name", repr(name), wanted, f"model.name is {name!r}, which holds no model; wanted {wanted}."
        )


def _check_ids(document: JobDocument, scan: DatasetScan, findings: Findings) -> None:
    train = scan.roles["train"]
    if document.dataset.id is None:
        return
    repeats = find_repeats(train.id_keys)
    if repeats.count:
        pairs = [f"rows {train.rows[first]} and {train.rows[second]}" for first, second in repeats.pairs]
        rest = repeats.count - len(pairs)
        seen = "; ".join(pairs) + (f"; {rest} more" if rest else "")
        wanted = "an id of its own for every curated row"
        where = f"ids repeat in {train.table.path.name}: {seen}"
        message = f"dataset.id is {document.dataset.id!r}, where {where}; wanted {wanted}."
        findings.refuse("dataset.id", seen, wanted, message)


def _report_duplicates(leakage: Leakage) -> Iterator[DuplicateReport]:
    for overlap in leakage.overlaps:
        yield DuplicateReport(
            first=overlap.first,
            second=overlap.second,
            kind=overlap.kind,
            count=overlap.count,
            examples=overlap.examples,
        )


def _report_leakage(leakage: Leakage) -> LeakageReport:
    return LeakageReport(
        action=leakage.test.action,
        trusted=leakage.trusted.action,
        similarity=leakage.similarity if leakage.not_searched is None else None,
        not_searched=leakage.not_searched,
        num_leaking_test_rows=len(leakage.test.rows),
        num_excluded_test_rows=len(leakage.test.excluded),
        num_leaking_trusted_rows=len(leakage.trusted.rows),
        num_excluded_trusted_rows=len(leakage.trusted.excluded),
    )


def _report_votes(scan: DatasetScan) -> VoteReport | None:
    if scan.votes is None:
        return None
    counts = count_votes(scan.votes)
    return VoteReport(
        num_functions=counts.num_functions, num_covered=counts.num_covered, num_disagreeing=counts.num_disagreeing
    )


def _note_leakage(scan: DatasetScan) -> Iterator[str]:
    yield from write_notes(scan.leakage)
    num_torn = _count_conflicts(scan.roles["train"], scan)
    if num_torn:
        yield f"{num_torn:,} curated rows repeat an earlier one with another given label."


def _note_votes(document: JobDocument, scan: DatasetScan) -> Iterator[str]:
    if scan.votes is not None:
        yield write_note(count_votes(scan.votes), _find_why_unused(document, scan))


def _find_why_unused(document: JobDocument, scan: DatasetScan) -> str | None:
    """Return why the votes are not used, in words; None where they are."""
    if document.method.name in BASELINES:
        return f"the method {document.method.name!r} looks at no votes"
    if "meta" not in scan.codes:
        return "no trusted rows judge them"
    if scan.meta_votes is None:
        lacks = scan.roles["meta"].votes is None
        return "the file of the trusted rows lacks the columns" if lacks else "there are none on the trusted rows"
    if (scan.codes["meta"] >= 0).sum() < FEWEST_JUDGES:
        return f"fewer than {FEWEST_JUDGES} trusted rows judge them"
    return None


def _count_conflicts(train: RoleScan, scan: DatasetScan) -> int:
    """Count the labelled rows whose inputs equal the row before them in sorted order but whose label differs."""
    labelled = scan.codes["train"] >= 0
    keys, codes = train.keys[labelled], scan.codes["train"][labelled]
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    return int((same & (codes[order][1:] != codes[order][:-1])).sum())


def _note_inputs(document: JobDocument, scan: DatasetScan) -> Iterator[str]:
    train = scan.roles["train"]
    num_rows = len(train.rows)
    num_unlabelled = int((scan.codes["train"] < 0).sum())
    wants_labels = document.relabelling is not None and document.relabelling.unlabelled
    if num_unlabelled:
        fate = "never trained on, reported as such"
        if wants_labels:
            fate = "labelled where a label is probable enough (relabel.unlabelled), else never trained on"
        yield f"{num_unlabelled:,} of {num_rows:,} curated rows are unlabelled: {fate}."
    elif wants_labels:
        yield "relabel.unlabelled has no effect: every curated row has a label."
    if scan.trusted_rows is not None:
        yield f"{len(scan.trusted_rows):,} curated rows are taken as trusted (meta.fraction) and stay curated."
    if scan.sources.inputs.left_out:
        names = ", ".join(scan.sources.inputs.left_out)
        yield f"dataset.features '*' leaves out columns that hold neither numbers nor text: {names}."
    if scan.sources.inputs.row_numbers:
        names = ", ".join(repr(name) for name in scan.sources.inputs.row_numbers)
        yield f"dataset.features '*' leaves out the row numbers that pandas writes beside the columns: {names}."
    for name, count in train.counts.missing.items():
        if count and scan.sources.inputs.kind == "text":
            yield f"{count:,} of {num_rows:,} curated rows have no text in {name!r}; they count as empty text."
        elif count and name in scan.features:
            how = "median and an indicator" if scan.features[name] == "numeric" else "a category of its own"
            yield f"Column {name!r} has no value in {count:,} of {num_rows:,} curated rows; read as {how}."
    if len(train.counts.image_sizes) > 1:
        (width, height), count = train.counts.image_sizes.most_common(1)[0]
        yield (
            f"The images have {len(train.counts.image_sizes):,} different sizes; "
            f"{width} x {height} is the commonest ({count:,} of {num_rows:,})."
        )


def _report_files(document: JobDocument, scan: DatasetScan) -> Iterator[FileReport]:
    for uri in dict.fromkeys(scan.sources.uris.values()):
        roles = [role for role, other in scan.sources.uris.items() if other == uri]
        table = scan.sources.tables[roles[0]]
        uses = _list_uses(document, scan, roles)
        columns = tuple(
            ColumnReport(name=field.name, type=str(field.type), used_as=tuple(uses.get(field.name, ())))
            for field in table.schema
        )
        yield FileReport(
            uri=uri,
            roles=tuple(roles),
            format=table.format,
            num_rows=table.num_rows,
            num_bytes=table.num_bytes,
            columns=columns,
        )


def _list_uses(document: JobDocument, scan: DatasetScan, roles: list[RoleName]) -> dict[str, list[str]]:
    uses: dict[str, list[str]] = {}
    for name in scan.sources.inputs.names:
        uses.setdefault(name, []).append(scan.sources.inputs.features.get(name, scan.sources.inputs.kind))
    for role in roles:
        columns = find_columns(document, role, scan.sources.tables[role].schema)
        named = [(columns.label, f"label ({role})"), (columns.trusted, "label (meta)")]
        if role == "train":
            named += [(columns.id, "id"), (columns.source, "source")]
        if role == "train" or "train" not in roles:
            named += [(name, "votes") for name in columns.votes]
        for column, use in named:
            if column is not None:
                uses.setdefault(column, []).append(use)
    sections = (document.dataset, document.meta, document.test)
    for column in {section.split.column for section in sections if section is not None and section.split is not None}:
        uses.setdefault(column, []).append("split")
    return uses


def _report_roles(scan: DatasetScan) -> Iterator[RoleReport]:
    leaks = scan.leakage.by_role
    for role, found in scan.roles.items():
        num_labelled = int((scan.codes[role] >= 0).sum())
        num_excluded = len(leaks[role].excluded) if role in leaks else 0
        yield RoleReport(
            role=role,
            num_rows=len(found.rows),
            num_labelled=num_labelled,
            num_unlabelled=len(found.rows) - num_labelled - num_excluded,
            num_excluded=num_excluded,
            num_input_bytes=found.counts.num_bytes,
            num_missing={name: count for name, count in found.counts.missing.items() if count},
            rows_digest=found.rows_digest,
        )
    if scan.trusted_rows is not None:
        num_rows = len(scan.trusted_rows)
        yield RoleReport(role="meta", num_rows=num_rows, num_labelled=num_rows, num_unlabelled=0)


def _report_classes(scan: DatasetScan) -> Iterator[ClassReport]:
    counts = {role: count_classes(codes, scan.label_map.num_classes) for role, codes in scan.codes.items()}
    for code, label in enumerate(scan.label_map.values):
        yield ClassReport(
            label=label,
            code=code,
            num_train=counts["train"][code],
            num_meta=counts["meta"][code] if "meta" in counts else None,
            num_test=counts["test"][code] if "test" in counts else None,
        )


def _estimate(document: JobDocument, scan: DatasetScan) -> EstimateReport:
    train = scan.roles["train"]
    sizes = train.counts.image_sizes.most_common(1)
    num_pixels = sizes[0][0][0] * sizes[0][0][1] if sizes else None
    num_labelled = int((scan.codes["train"] >= 0).sum())
    estimate = estimate_job(document, num_labelled, train.counts.num_bytes, num_pixels)
    return EstimateReport(
        model=estimate.model, seconds=estimate.seconds, memory_bytes=estimate.memory_bytes, basis=estimate.basis
    )
