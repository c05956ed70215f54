"""Pairs of examples that are nearly the same, found without comparing each with each."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from service.storage.sketches import AbstractSketches, BandKeys, Rows

# Rows that share a key are compared with this many others of them in each band. Every band orders them anew, so that
# in a crowd of alike rows nearly each meets another; a smaller group is compared in full.
WINDOW = 16
CHUNK_PAIRS = 1 << 16
_STREAM = 0x1EA4

Pairs = tuple[Rows, Rows]


def find_near_pairs(sketches: AbstractSketches[Any], rows: Rows, on_band: Callable[[], None]) -> Pairs:
    """Return the pairs of `rows` that are at least as alike as the sketches' similarity, each once, sorted.

    `rows` should leave out exact repeats. A pair is met when it shares a key in some band; `on_band` is called before
    each and may raise.
    """
    found = [np.empty(0, dtype=np.int64)]
    if len(rows) > 1:
        generator = np.random.default_rng(_STREAM)
        for keys in sketches.band(rows):
            on_band()
            for first, second in _meet(keys, generator.permutation(len(rows))):
                alike = sketches.compare(rows[first], rows[second]) >= sketches.similarity
                lower, upper = np.minimum(first, second)[alike], np.maximum(first, second)[alike]
                found.append(np.unique(lower * len(rows) + upper))
    codes = np.unique(np.concatenate(found))
    return rows[codes // max(len(rows), 1)], rows[codes % max(len(rows), 1)]


def _meet(keys: BandKeys, shuffle: Rows) -> Iterator[Pairs]:
    """Yield pairs of positions with equal keys, those next to each other first, in chunks."""
    order = shuffle[np.argsort(keys[shuffle], kind="stable")]
    ordered = keys[order]
    starts = np.arange(len(keys))
    for distance in range(1, WINDOW + 1):
        starts = starts[starts + distance < len(keys)]
        starts = starts[ordered[starts] == ordered[starts + distance]]
        if len(starts) == 0:
            return
        for begin in range(0, len(starts), CHUNK_PAIRS):
            chunk = starts[begin : begin + CHUNK_PAIRS]
            yield order[chunk], order[chunk + distance]
