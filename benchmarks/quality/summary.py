"""The records of a run, looked up by set and method."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.journal import Record

MISSING = "-"


@dataclass(frozen=True)
class Spread:
    """Mean over the seeds, and their standard deviation."""

    mean: float
    deviation: float
    count: int

    def format(self, digits: int = 3) -> str:
        """Return `0.912 ± 0.004`."""
        shown = f"{self.mean:.{digits}f}"
        return f"{shown} ± {self.deviation:.{digits}f}" if self.count > 1 else shown


class Summary:
    """Figures by set and method.

    Args:
        records: of the units.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._records: dict[tuple[str, str, str, str], list[Record]] = {}
        self.errors: list[Record] = []
        for record in records:
            unit = record["unit"]
            if "error" in record:
                self.errors.append(record)
                continue
            place = (unit["kind"], unit["set_name"], unit["mode"], unit["method"])
            self._records.setdefault(place, []).append(record)

    def list_sets(self, kind: str = "curation", mode: str = "audited") -> list[str]:
        """Return the sets with units of a kind."""
        return list(dict.fromkeys(place[1] for place in self._records if place[0] == kind and place[2] == mode))

    def list_methods(self, kind: str = "curation", mode: str = "audited") -> list[str]:
        """Return the methods with units of a kind."""
        return list(dict.fromkeys(place[3] for place in self._records if place[0] == kind and place[2] == mode))

    @property
    def num_done(self) -> int:
        """Units that came to their end."""
        return sum(map(len, self._records.values()))

    def list_seeds(self) -> list[int]:
        """Return all seeds."""
        return sorted({record["unit"]["seed"] for records in self._records.values() for record in records})

    def find(self, kind: str, set_name: str, method: str, mode: str = "audited") -> list[Record]:
        """Return the records of all seeds."""
        return self._records.get((kind, set_name, mode, method), [])

    def collect(self, kind: str, set_name: str, method: str, *path: str, mode: str = "audited") -> list[float]:
        """Return a figure of each seed, where it was measured."""
        found = [_descend(record, path) for record in self.find(kind, set_name, method, mode)]
        return [value for value in found if value is not None]

    def spread(self, kind: str, set_name: str, method: str, *path: str, mode: str = "audited") -> Spread | None:
        """Return mean and spread of a figure; None where it was not measured."""
        return spread_of(self.collect(kind, set_name, method, *path, mode=mode))

    def mean(self, kind: str, set_name: str, method: str, *path: str, mode: str = "audited") -> float | None:
        """Return the mean of a figure; None where it was not measured."""
        found = self.spread(kind, set_name, method, *path, mode=mode)
        return None if found is None else found.mean


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return mean and standard deviation.

    >>> spread_of([0.9, 1.0]).format(2)
    '0.95 ± 0.07'
    """
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), deviation, len(values))


def _descend(record: Record, path: Sequence[str]) -> float | None:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None else float(value)
