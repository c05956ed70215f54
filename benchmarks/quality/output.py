"""Where a run's tables and plots go."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import name_machine
from benchmarks.quality.charts import draw_charts
from benchmarks.quality.journal import Journal
from benchmarks.quality.report import format_report, is_ablation
from benchmarks.quality.summary import Summary

DOCUMENT = Path(__file__).parents[2] / "docs" / "results" / "quality.md"
_BEGIN, _END = "<!-- begin: {name}, written by python -m benchmarks quality -->", "<!-- end: {name} -->"


def write_results(name: str, journal: Journal, setting: Mapping[str, Any], folder: Path) -> str:
    """Write tables, plots and every unit's figures to a folder; return the tables."""
    summary = Summary(journal.list_records())
    text = format_report(summary, journal.origins)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{name_machine()}"
    charts = {} if is_ablation(summary) else draw_charts(summary)
    for chart, drawn in charts.items():
        (folder / f"{stem}-{chart}.svg").write_text(drawn)
    shown = "\n\n".join(f"![{chart}]({stem}-{chart}.svg)" for chart in charts)
    (folder / f"{stem}.md").write_text(f"## {name}\n\n{text}\n\n{shown}\n")
    lines = [json.dumps(record) for record in journal.list_records()]
    units = ",\n  ".join(lines)
    head = json.dumps({"origins": journal.origins, "setting": setting})[1:-1]
    (folder / f"{stem}.json").write_text(f'{{{head}, "units": [\n  {units}\n]}}\n')
    return text


def refresh_document(name: str, folder: Path, document: Path = DOCUMENT) -> None:
    """Put the tables and plots of a results folder into the document, between its marks for this name.

    Raises:
        ValueError: the document has no such marks.
    """
    stem = f"{name}-{name_machine()}"
    begin, end = _BEGIN.format(name=name), _END.format(name=name)
    text = document.read_text()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{document}: no {begin} ... {end}")
    up = "/".join(".." for _ in document.parent.relative_to(DOCUMENT.parents[2]).parts)
    place = f"{up}/{folder.relative_to(DOCUMENT.parents[2])}"
    tables = (folder / f"{stem}.md").read_text().replace(f"]({stem}", f"]({place}/{stem}")
    tables = tables.partition("\n\n")[2]
    document.write_text(f"{before}{begin}\n\n{tables}\n{end}{after}")
