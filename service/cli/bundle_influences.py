"""Whether the influences of a bundle agree with themselves, with its rows and with its manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.client.bundle_listing import INFLUENCES_FILE
from service.errors import Problem
from service.storage.arrow_types import ChunkedArray

COLUMNS = ("row", "id", "rank", "meta_row", "meta_id", "meta_label", "influence")


def check_influences(directory: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    """Yield what does not agree, of the lines the first; bundles whose manifest tells of no influences have no file."""
    path, described = directory / INFLUENCES_FILE, manifest.get("influences")
    if not isinstance(described, dict):
        if path.exists():
            yield _refuse("a file", "none", f"{INFLUENCES_FILE} is there, but manifest.json tells of no influences.")
        return
    try:
        table = pq.read_table(path)
        ids = pq.read_table(directory / "rows.parquet", columns=["id"]).column("id")
    except (pa.ArrowException, OSError) as exc:
        yield _refuse(str(exc), "a table", f"{INFLUENCES_FILE} cannot be read as a table.")
        return
    seen, wanted = ", ".join(table.column_names), ", ".join(COLUMNS)
    if seen != wanted or any(table.column(name).null_count for name in ("row", "rank", "influence")):
        message = f"{INFLUENCES_FILE} has the columns {seen}; wanted {wanted}, numbers in every line."
        yield _refuse(seen, wanted, message)
        return
    lines = table.to_pylist()
    classes = set((manifest.get("labels") or {}).get("names") or ())
    for number, line in enumerate(lines):
        words = _find_fault(line, lines[number - 1] if number else None, ids, classes)
        if words is not None:
            yield _refuse(words, "influences that agree", f"{INFLUENCES_FILE}: line {number} {words}.")
            return
    num_rows, most = len({line["row"] for line in lines}), described.get("num_rows")
    if not isinstance(most, int) or num_rows > most:
        message = f"manifest.json says that {most} rows were traced; {INFLUENCES_FILE} has {num_rows}."
        yield _refuse(str(num_rows), str(most), message)


def _find_fault(
    line: dict[str, Any], before: dict[str, Any] | None, ids: ChunkedArray, classes: set[Any]
) -> str | None:
    """Return what is wrong with a line behind another one, or None."""
    row = line["row"]
    same = before if before is not None and before["row"] == row else None
    if not 0 <= row < len(ids):
        return f"names row {row}, which rows.parquet has not"
    if line["id"] != ids[row].as_py():
        return f"gives row {row} another id than rows.parquet"
    if line["rank"] != (1 if same is None else same["rank"] + 1):
        return f"has rank {line['rank']} out of order"
    if not (line["influence"] < 0 and (same is None or same["influence"] <= line["influence"])):
        return f"has influence {line['influence']:.3g} where it has to be below 0, and no stronger than the one before"
    if line["meta_label"] not in classes:
        return f"has the trusted label {line['meta_label']!r}, which is no class"
    return None


def _refuse(seen: str, wanted: str, message: str) -> Problem:
    return Problem(param=INFLUENCES_FILE, seen=seen, wanted=wanted, message=message)
