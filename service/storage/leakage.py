"""The leakage guard: examples that stand in two roles at once, exactly or nearly, and what is done about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.jobs.document import JobDocument
from service.storage.findings import Findings
from service.storage.overlaps import NearSearch, Overlap, find_overlaps
from service.storage.scanning import RoleScan
from service.storage.sketches import choose_similarity
from service.storage.sources import RoleName

Rows = npt.NDArray[np.int64]

ROLE_WORDS: Mapping[RoleName, str] = {"train": "curated rows", "meta": "meta set", "test": "test rows"}


@dataclass(frozen=True, slots=True)
class Leakage:
    """What the guard found and did.

    `excluded_test_rows` are positions among the test rows; `not_searched` says why near duplicates were not looked
    for, None where they were; `similarity` is None where none could be near.
    """

    action: Literal["exclude", "refuse", "report"]
    similarity: float | None
    not_searched: str | None
    overlaps: tuple[Overlap, ...]
    leaking_test_rows: Rows
    excluded_test_rows: Rows
    num_test_rows: int

    def describe(self) -> dict[str, Any]:
        """Return the findings as the manifest records them."""
        return {
            "action": self.action,
            "near": "searched" if self.not_searched is None else f"not searched: {self.not_searched}",
            "similarity": self.similarity if self.not_searched is None else None,
            "num_leaking_test_rows": len(self.leaking_test_rows),
            "num_excluded_test_rows": len(self.excluded_test_rows),
            "overlaps": [
                {
                    "first": overlap.first,
                    "second": overlap.second,
                    "kind": overlap.kind,
                    "count": overlap.count,
                    "examples": [list(pair) for pair in overlap.examples],
                }
                for overlap in self.overlaps
            ],
        }


def find_leakage(document: JobDocument, roles: Mapping[RoleName, RoleScan], search: NearSearch) -> Leakage:
    """Find the examples that stand in two roles or twice in one, and the test rows that leak.

    Raises:
        DataError: `file_changed`, as `NearSearch.find_pairs`.
    """
    found = list(find_overlaps(roles, search))
    leaking = [overlap.rows for overlap in found if overlap.second == "test" and overlap.first != "test"]
    leaking_rows = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *leaking]))
    action = document.leakage.action
    return Leakage(
        action=action,
        similarity=choose_similarity(document.dataset, document.leakage),
        not_searched=search.not_searched,
        overlaps=tuple(overlap for overlap in found if overlap.count),
        leaking_test_rows=leaking_rows,
        excluded_test_rows=leaking_rows if action == "exclude" else leaking_rows[:0],
        num_test_rows=len(roles["test"].rows) if "test" in roles else 0,
    )


def check_leakage(leakage: Leakage, test_codes: Rows, findings: Findings) -> None:
    """Refuse test rows that leak where the document asks for it, and a test set of nothing else."""
    num_leaking = len(leakage.leaking_test_rows)
    if num_leaking == 0:
        return
    seen = f"{num_leaking:,} of {leakage.num_test_rows:,} test rows"
    wanted = "test rows that stand neither among the curated nor among the trusted rows"
    where = "also among the curated or the trusted rows"
    if leakage.action == "refuse":
        how = _show_examples(leakage)
        message = f"test: {seen} stand {where}, {how}; wanted {wanted}. Or use leakage.action: exclude."
        findings.refuse("test", seen, wanted, message)
    labelled = np.flatnonzero(test_codes >= 0)
    if leakage.action == "exclude" and len(labelled) and np.isin(labelled, leakage.excluded_test_rows).all():
        message = f"test: all {len(labelled):,} labelled test rows stand {where}; wanted {wanted}."
        findings.refuse("test", f"all {len(labelled):,} labelled test rows", wanted, message)


def write_notes(leakage: Leakage) -> Iterator[str]:
    """Say what was found that matters to a person, and what was done about it."""
    for overlap in leakage.overlaps:
        if overlap.first == "train" or overlap.second != overlap.first:
            yield _write_overlap(overlap)
    num_leaking = len(leakage.leaking_test_rows)
    if num_leaking and leakage.action == "exclude":
        yield (
            f"{num_leaking:,} of {leakage.num_test_rows:,} test rows are left out of the test set, since they stand "
            "also among the curated or the trusted rows (leakage.action: exclude)."
        )
    elif num_leaking and leakage.action == "report":
        yield "These rows stay in the test set (leakage.action: report): accuracy on it may flatter."


def _write_overlap(overlap: Overlap) -> str:
    row, other = overlap.examples[0]
    words, others = ROLE_WORDS[overlap.first], ROLE_WORDS[overlap.second]
    exactly = overlap.kind == "exact"
    if overlap.first == overlap.second:
        how = "repeat an earlier one exactly" if exactly else "nearly repeat an earlier one"
        return f"{overlap.count:,} of the {words} {how}, such as rows {row} and {other}."
    leads = "Leakage: " if overlap.second == "test" else ""
    how = "stand also among" if exactly else "are near duplicates of rows among"
    return f"{leads}{overlap.count:,} of the {others} {how} the {words}, such as rows {other} and {row}."


def _show_examples(leakage: Leakage) -> str:
    overlap = next(one for one in leakage.overlaps if one.second == "test" and one.first != "test")
    row, other = overlap.examples[0]
    how = "exactly" if overlap.kind == "exact" else "nearly"
    return f"such as row {other} of the test rows and row {row} of the {ROLE_WORDS[overlap.first]} ({how})"
