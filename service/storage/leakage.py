"""The leakage guard: examples that stand in two roles at once, exactly or nearly, and what is done about it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.jobs.document import JobDocument
from service.jobs.document_specs import LeakageAction
from service.storage.findings import Findings
from service.storage.labels import UNLABELLED_CODE
from service.storage.overlaps import NearSearch, Overlap, find_overlaps
from service.storage.scanning import RoleScan
from service.storage.sketches import choose_similarity
from service.storage.sources import RoleName

Rows = npt.NDArray[np.int64]

ROLE_WORDS: Mapping[RoleName, str] = {"train": "curated rows", "meta": "trusted rows", "test": "test rows"}


@dataclass(frozen=True, slots=True)
class Leaks:
    """The rows of one role that stand also where they should not, and what is done about them.

    `rows` are positions among the rows of the role, `numbers` the same rows as numbers in the role's file, ascending.
    """

    action: LeakageAction
    rows: Rows
    numbers: Rows
    num_rows: int

    @property
    def excluded(self) -> Rows:
        """Positions of the rows that are left out of the role."""
        return self.rows if self.action == "exclude" else self.rows[:0]


@dataclass(frozen=True, slots=True)
class Leakage:
    """What the guard found and did.

    `test` are test rows that stand also among the curated or the trusted rows, `trusted` are trusted rows that stand
    also among the curated rows (none where they are a share of these); `not_searched` says why near duplicates were not
    looked for, None where they were; `similarity` is None where none could be near.
    """

    similarity: float | None
    not_searched: str | None
    overlaps: tuple[Overlap, ...]
    test: Leaks
    trusted: Leaks

    @property
    def by_role(self) -> Mapping[RoleName, Leaks]:
        """The rows that leak, by their role."""
        return {"test": self.test, "meta": self.trusted}

    def describe(self) -> dict[str, Any]:
        """Return the findings as the manifest records them."""
        return {
            "action": self.test.action,
            "trusted": self.trusted.action,
            "near": "searched" if self.not_searched is None else f"not searched: {self.not_searched}",
            "similarity": self.similarity if self.not_searched is None else None,
            **_describe_leaks("test", self.test),
            **_describe_leaks("trusted", self.trusted),
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


def _describe_leaks(name: str, leaks: Leaks) -> dict[str, Any]:
    return {
        f"num_leaking_{name}_rows": len(leaks.rows),
        f"num_excluded_{name}_rows": len(leaks.excluded),
        f"leaking_{name}_rows": leaks.numbers.tolist(),
    }


def find_leakage(document: JobDocument, roles: Mapping[RoleName, RoleScan], search: NearSearch) -> Leakage:
    """Find the examples that stand in two roles or twice in one, and the test and the trusted rows that leak.

    Raises:
        DataError: `file_changed`, as `NearSearch.find_pairs`.
    """
    found = list(find_overlaps(roles, search))
    return Leakage(
        similarity=choose_similarity(document.dataset, document.leakage),
        not_searched=search.not_searched,
        overlaps=tuple(overlap for overlap in found if overlap.count),
        test=_gather("test", document.leakage.action, roles, found),
        trusted=_gather("meta", document.leakage.trusted or "report", roles, found),
    )


def _gather(
    role: RoleName, action: LeakageAction, roles: Mapping[RoleName, RoleScan], found: Sequence[Overlap]
) -> Leaks:
    leaking = [overlap.rows for overlap in found if overlap.second == role != overlap.first]
    rows = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *leaking]))
    numbers = roles[role].rows if role in roles else rows
    return Leaks(action, rows, numbers[rows], len(numbers))


_KINDS: Mapping[RoleName, tuple[str, str]] = {
    "test": ("among the curated or the trusted rows", "leakage.action"),
    "meta": ("among the curated rows", "leakage.trusted"),
}


def exclude_leaks(
    leakage: Leakage, roles: Mapping[RoleName, RoleScan], codes: Mapping[RoleName, Rows], findings: Findings
) -> None:
    """Take the labels of the rows that are left out; refuse leaks where the document asks for it, and a role of nothing
    else."""
    for role, leaks in leakage.by_role.items():
        if len(leaks.rows) == 0:
            continue
        where, field = _KINDS[role]
        words = ROLE_WORDS[role]
        seen, wanted = f"{len(leaks.rows):,} of {leaks.num_rows:,} {words}", f"{words} that do not stand {where}"
        if leaks.action == "refuse":
            how = _show_examples(leakage, role, roles)
            message = f"{role}: {seen} stand also {where}, {how}; wanted {wanted}. Or use {field}: exclude."
            findings.refuse(role, seen, wanted, message)
        labelled = np.flatnonzero(codes[role] >= 0)
        if leaks.action == "exclude" and len(labelled) and np.isin(labelled, leaks.rows).all():
            seen = f"all {len(labelled):,} labelled {words}"
            findings.refuse(role, seen, wanted, f"{role}: {seen} stand also {where}; wanted {wanted}.")
        else:
            codes[role][leaks.excluded] = UNLABELLED_CODE


def write_notes(leakage: Leakage) -> Iterator[str]:
    """Say what was found that matters to a person, and what was done about it."""
    for overlap in leakage.overlaps:
        if not overlap.first == overlap.second == "test":
            yield _write_overlap(overlap)
    for role, leaks in leakage.by_role.items():
        where, field = _KINDS[role]
        if len(leaks.excluded):
            yield (
                f"{len(leaks.rows):,} of {leaks.num_rows:,} {ROLE_WORDS[role]} are left out of the {role} set, since "
                f"they stand also {where} ({field}: exclude)."
            )
    if len(leakage.test.rows) and leakage.test.action == "report":
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


def _show_examples(leakage: Leakage, role: RoleName, roles: Mapping[RoleName, RoleScan]) -> str:
    overlap = next(one for one in leakage.overlaps if one.second == role != one.first)
    row, other = overlap.examples[0]
    how = "exactly" if overlap.kind == "exact" else "nearly"
    ours, theirs = (roles[name].table.path.name for name in (role, overlap.first))
    return f"such as row {other} of {ours}, {how} row {row} of {theirs} among the {ROLE_WORDS[overlap.first]}"
