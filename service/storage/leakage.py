"""The leakage guard: examples that stand in two roles at once, exactly or nearly, and what is done about it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.jobs.document import JobDocument
from service.storage.digests import Repeats, find_repeats, find_shared
from service.storage.faults import DataError
from service.storage.findings import Findings
from service.storage.near_pairs import Pairs, find_near_pairs
from service.storage.scanning import RoleScan
from service.storage.sketches import AbstractSketches, choose_similarity
from service.storage.sources import RoleName

Rows = npt.NDArray[np.int64]
Kind = Literal["exact", "near"]

ROLE_WORDS: Mapping[RoleName, str] = {"train": "curated rows", "meta": "meta set", "test": "test rows"}
NUM_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Overlap:
    """Examples of the role `second` that stand in `first` too; within one role, those that repeat an earlier one.

    `examples` are pairs of row numbers, each in its role's own file; near ones are counted where there is no exact one.
    """

    first: RoleName
    second: RoleName
    kind: Kind
    count: int
    examples: tuple[tuple[int, int], ...]


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


@dataclass(frozen=True, slots=True)
class NearSearch:
    """How near duplicates are found: by sketches, or by the file in which an earlier reading left its pairs."""

    sketches: AbstractSketches[Any] | None = None
    file: Path | None = None
    not_searched: str | None = None
    on_band: Callable[[], None] = lambda: None

    def find_pairs(self, keys: npt.NDArray[np.bytes_], rows: Rows) -> Pairs:
        """Return the pairs of alike rows among `rows`, the first of each content; `keys` name all contents.

        Raises:
            DataError: `file_changed`; the earlier reading was of other data.
        """
        digest = hashlib.sha256(keys.tobytes()).hexdigest()
        if self.sketches is None:
            if self.file is None:
                return rows[:0], rows[:0]
            with np.load(self.file) as saved:
                if str(saved["digest"]) == digest:
                    return saved["first"], saved["second"]
            raise DataError("file_changed", "The data was changed since it was checked.", hint="Start the job again.")
        first, second = find_near_pairs(self.sketches, rows, self.on_band)
        if self.file is not None:
            with self.file.open("wb") as target:
                np.savez(target, digest=np.array(digest), first=first, second=second)
        return first, second


def find_leakage(document: JobDocument, roles: Mapping[RoleName, RoleScan], search: NearSearch) -> Leakage:
    """Find the examples that stand in two roles or twice in one, and the test rows that leak.

    Raises:
        DataError: `file_changed`, as `NearSearch.find_pairs`.
    """
    exact = {pair: _find_exact(roles, *pair) for pair in _list_pairs(roles)}
    near = {} if search.not_searched is not None else _find_near(roles, search)
    found: list[tuple[Kind, tuple[RoleName, RoleName], Repeats]] = []
    for pair, repeats in exact.items():
        found.append(("exact", pair, repeats))
        if pair in near:
            found.append(("near", pair, near[pair]))
    overlaps = tuple(_describe(roles, kind, pair, repeats) for kind, pair, repeats in found if repeats.count)
    leaking = [repeats.rows for _, pair, repeats in found if pair in (("train", "test"), ("meta", "test"))]
    leaking_rows = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *leaking]))
    action = document.leakage.action
    return Leakage(
        action=action,
        similarity=choose_similarity(document.dataset, document.leakage),
        not_searched=search.not_searched,
        overlaps=overlaps,
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


def _list_pairs(roles: Mapping[RoleName, RoleScan]) -> Iterator[tuple[RoleName, RoleName]]:
    present: list[RoleName] = [role for role in ("train", "meta", "test") if role in roles]
    for at, first in enumerate(present):
        for second in present[at:]:
            yield first, second


def _find_exact(roles: Mapping[RoleName, RoleScan], first: RoleName, second: RoleName) -> Repeats:
    keys, others = roles[first].keys, roles[second].keys
    return find_repeats(keys, NUM_EXAMPLES) if first == second else find_shared(keys, others, NUM_EXAMPLES)


def _describe(
    roles: Mapping[RoleName, RoleScan], kind: Kind, pair: tuple[RoleName, RoleName], repeats: Repeats
) -> Overlap:
    first, second = pair
    rows, others = roles[first].rows, roles[second].rows
    examples = tuple((int(rows[one]), int(others[other])) for one, other in repeats.pairs)
    return Overlap(first, second, kind, repeats.count, examples)


def _find_near(roles: Mapping[RoleName, RoleScan], search: NearSearch) -> dict[tuple[RoleName, RoleName], Repeats]:
    """Find the rows of one role that are nearly, but nowhere exactly, in another."""
    keys = np.concatenate([scan.keys for scan in roles.values()])
    _, firsts, contents = np.unique(keys, return_index=True, return_inverse=True)
    first, second = search.find_pairs(keys, firsts.astype(np.int64))
    ends = np.cumsum([len(scan.keys) for scan in roles.values()])
    parts = dict(zip(roles, np.split(contents, ends[:-1]), strict=True))
    pairs = contents[first], contents[second]
    num_contents = len(firsts)
    places = {role: _place(part, num_contents) for role, part in parts.items()}
    return {
        (one, other): _repeat_nearly(pairs, places[one])
        if one == other
        else _share_nearly(pairs, places[one], parts[other])
        for one, other in _list_pairs(roles)
    }


def _place(contents: Rows, num_contents: int) -> Rows:
    """Return the first row of each content in a role, -1 where it is not there."""
    places = np.full(num_contents, -1, dtype=np.int64)
    places[contents[::-1]] = np.arange(len(contents) - 1, -1, -1)
    return places


def _repeat_nearly(pairs: Pairs, places: Rows) -> Repeats:
    first, second = places[pairs[0]], places[pairs[1]]
    inside = (first >= 0) & (second >= 0)
    earlier, later = np.minimum(first, second)[inside], np.maximum(first, second)[inside]
    order = np.lexsort((earlier, later))
    rows, at = np.unique(later[order], return_index=True)
    partners = earlier[order][at]
    examples = tuple(zip(partners[:NUM_EXAMPLES].tolist(), rows[:NUM_EXAMPLES].tolist(), strict=True))
    return Repeats(len(rows), examples, rows)


def _share_nearly(pairs: Pairs, places: Rows, others: Rows) -> Repeats:
    ours = np.concatenate(pairs)
    theirs = np.concatenate(pairs[::-1])
    inside = places[theirs] >= 0
    order = np.argsort(-places[theirs[inside]], kind="stable")
    partners = np.full(len(places), -1, dtype=np.int64)
    partners[ours[inside][order]] = places[theirs[inside][order]]
    rows = np.flatnonzero((partners[others] >= 0) & (places[others] < 0))
    examples = tuple((int(partners[others[row]]), int(row)) for row in rows[:NUM_EXAMPLES])
    return Repeats(len(rows), examples, rows)
