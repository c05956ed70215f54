"""What a dry run saw, in lines for a terminal."""

from collections.abc import Iterator

from service.cli.tables import write_table
from service.datasets.schemas import FileReport, InspectionReport, LeakageReport
from service.wording import write_bytes, write_count, write_seconds

_ROLE_WORDS = {"train": "to curate", "meta": "trusted", "test": "for the test"}
_MOST_CLASSES = 20


def write_inspection(report: InspectionReport) -> list[str]:
    """Return the whole report: files and columns, rows of each role, classes, overlaps, estimate, notes."""
    lines: list[str] = []
    for file in report.files:
        lines += _write_file(file)
    lines += ["", *write_table(list(_list_roles(report)))]
    lines += ["", *_write_classes(report)]
    if not any(duplicates.count for duplicates in report.duplicates):
        lines += ["", "  no example stands twice"]
    lines.append("")
    if report.leakage is not None:
        lines.append(f"  leakage guard: {_write_guard(report.leakage)}")
    if report.estimate is not None:
        lines.append(f"  estimate: {_write_estimate(report)} ({report.estimate.basis})")
    lines += [f"  note: {note}" for note in report.notes]
    return [*lines, "", "valid: this job can run"]


def write_outline(report: InspectionReport) -> list[str]:
    """Return what is worth saying before a job begins: one line, and the notes."""
    parts = [f"{role.num_rows:,} {_ROLE_WORDS[role.role]}" for role in report.roles]
    parts.append(write_count(len(report.classes), "class"))
    if report.estimate is not None:
        parts.append(_write_estimate(report))
    return [f"data: {', '.join(parts)}", *(f"note: {note}" for note in report.notes)]


def _write_file(file: FileReport) -> list[str]:
    size = f"{file.format}, {write_count(file.num_rows, 'row')}, {write_bytes(file.num_bytes)}"
    rows = [[column.name, column.type, ", ".join(column.used_as)] for column in file.columns]
    table = [f"    {name}" for name in write_table(rows, indent="", align_right=False)] if rows else []
    return [f"{file.uri}: {size}", *table]


def _list_roles(report: InspectionReport) -> Iterator[list[str]]:
    yield ["rows", "all", "labelled", "unlabelled"]
    for role in report.roles:
        numbers = (role.num_rows, role.num_labelled, role.num_unlabelled)
        yield [_ROLE_WORDS[role.role], *(f"{number:,}" for number in numbers)]


def _write_classes(report: InspectionReport) -> list[str]:
    shown = [f"{one.label} ({one.num_train:,})" for one in report.classes[:_MOST_CLASSES]]
    more = ", ..." if len(report.classes) > _MOST_CLASSES else ""
    return [f"  {write_count(len(report.classes), 'class')}: {', '.join(shown)}{more}"]


def _write_guard(guard: LeakageReport) -> str:
    if guard.not_searched is None:
        how = f"exact and near duplicates (similarity from {guard.similarity:g})"
    else:
        how = f"exact duplicates alone ({guard.not_searched})"
    leaking = write_count(guard.num_leaking_test_rows, "test row")
    told = f"{how}; {leaking} found, {guard.num_excluded_test_rows:,} left out"
    if guard.num_leaking_trusted_rows:
        trusted = write_count(guard.num_leaking_trusted_rows, "trusted row")
        told += f"; {trusted} found among the curated ones, {guard.num_excluded_trusted_rows:,} left out"
    return told


def _write_estimate(report: InspectionReport) -> str:
    assert report.estimate is not None, "asked for only where there is one"
    seconds, memory = write_seconds(report.estimate.seconds), write_bytes(report.estimate.memory_bytes)
    return f"about {seconds} and {memory} of memory with model {report.estimate.model}"
