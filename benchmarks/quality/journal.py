"""The results of units, one JSON line each, appended as they come."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.quality.unit import Unit

Record = dict[str, Any]
"""A unit's fields under `unit`, and its figures, or what went wrong under `error`."""


class JournalError(Exception):
    """The results that are there do not go together with those to come."""


class Journal:
    """The file of a run's results.

    Args:
        folder: where it lies.
        setting: what the results depend on beside their units.
        origin: machine and versions, for the report.
        resume: keep what is there.

    Raises:
        JournalError: there are results and they are not to be kept, or they were made with another setting.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any], origin: str, *, resume: bool) -> None:
        self._path = folder / "units.jsonl"
        self._records: dict[str, Record] = {}
        self.origins: list[str] = []
        if self._path.exists():
            if not resume:
                raise JournalError(f"{self._path}: holds results already; pass --resume, or another --out")
            self._read(setting)
        folder.mkdir(parents=True, exist_ok=True)
        self._end_line()
        if origin not in self.origins:
            self.origins.append(origin)
            self._append({"setting": setting, "origin": origin})

    def _read(self, setting: Mapping[str, Any]) -> None:
        for line in self._path.read_text().splitlines():
            values = _parse(line)
            if values is None:
                continue
            if "setting" not in values:
                self._records[values["key"]] = values
            elif values["setting"] != setting:
                raise JournalError(f"{self._path}: made with {values['setting']}; wanted {dict(setting)}")
            else:
                self.origins.append(values["origin"])

    def lacks(self, unit: Unit) -> bool:
        """Return whether a unit is still to be done, or done again because it failed."""
        record = self._records.get(unit.key)
        return record is None or "error" in record

    def add(self, unit: Unit, figures: Mapping[str, Any]) -> None:
        """Write the figures of a unit down at once."""
        record = {"key": unit.key, "unit": asdict(unit), **figures}
        self._records[unit.key] = record
        self._append(record)

    def list_records(self) -> list[Record]:
        """Return the last record of every unit, in the order of their names."""
        return [self._records[key] for key in sorted(self._records)]

    def _end_line(self) -> None:
        """End a line that a kill cut short, so that the next one stands by itself."""
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            with self._path.open("a") as file:
                file.write("\n")

    def _append(self, values: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def _parse(line: str) -> Record | None:
    """Return the line's values; None for one that a kill cut short."""
    try:
        values: Record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return values
