"""Examples that stand in two roles, or twice in one: exactly, by their digests, or nearly, by their sketches."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.storage.digests import Repeats, find_repeats, find_shared
from service.storage.faults import DataError
from service.storage.near_pairs import Pairs, find_near_pairs
from service.storage.scanning import RoleScan
from service.storage.sketches import AbstractSketches
from service.storage.sources import RoleName

Rows = npt.NDArray[np.int64]
Kind = Literal["exact", "near"]

NUM_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Overlap:
    """Examples of the role `second` that stand in `first` too; within one role, those that repeat an earlier one.

    `rows` are positions among the rows of `second`; `examples` are pairs of row numbers, each in its role's own file.
    Near ones are counted where there is no exact one.
    """

    first: RoleName
    second: RoleName
    kind: Kind
    rows: Rows
    examples: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.rows)


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


def find_overlaps(roles: Mapping[RoleName, RoleScan], search: NearSearch) -> Iterator[Overlap]:
    """Yield the overlaps of each two roles, and of each with itself, empty ones too.

    Raises:
        DataError: `file_changed`, as `NearSearch.find_pairs`.
    """
    near = {} if search.not_searched is not None else _find_near(roles, search)
    for pair in _list_pairs(roles):
        yield _describe(roles, "exact", pair, _find_exact(roles, *pair))
        if pair in near:
            yield _describe(roles, "near", pair, near[pair])


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
    return Overlap(first, second, kind, repeats.rows, examples)


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
