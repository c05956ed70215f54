"""The rule ``coverage``: every class, every range of the score and every part of the representation in every prefix."""

import numpy as np
from numpy.typing import NDArray

from sama_core.selection.balanced import share_out
from sama_core.selection.floor import place_in_groups
from sama_core.selection.spread import spread_points
from sama_core.selection.top import order_by_score

_MOST_STRATA = 50
_ROWS_PER_STRATUM = 20
_TAIL = 0.01


def order_by_coverage(
    score: NDArray[np.float32], labels: NDArray[np.int64], representation: NDArray[np.float32] | None = None
) -> NDArray[np.int64]:
    """Return the row numbers so that every prefix covers classes, scores and representation.

    Each class has its own share of every prefix. Within a class the range of its scores is cut into up to 50 strata of
    equal width, which take turns, the highest first, until they are used up: crowded ranges, where one row says what
    the next one says, are thinned out first, rare ones kept longest. Within a stratum the rows stand so that every
    prefix is spread over the representation (see ``spread_points``), or over the score where there is none.

    The sense of the score hardly matters here: easy and hard rows are taken alike.

    Shapes: score (N,), labels (N,), representation (N, D) -> (N,).

    References:
        Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023, arXiv:2210.15809: strata of
        the score. The turns (one nested order for all fractions), the shares of the classes and the spread are ours.

    Example:
        >>> score = np.repeat(np.array([0.0, 1.0], dtype=np.float32), (80, 20))
        >>> kept = order_by_coverage(score, np.zeros(100, dtype=np.int64))[:20]
        >>> int((score[kept] == 1.0).sum())
        10
    """
    strata_N = _cut_strata(score, labels)
    points = score[:, None] if representation is None else representation
    places_N = spread_points(points, strata_N)
    return share_out(np.lexsort((strata_N, places_N)), labels)


def _cut_strata(score: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of each row's stratum: the strata of a class are numbered from its highest scores down.

    The lowest and the highest hundredth of a class do not stretch its range: they join the strata at the ends.
    """
    strata_N = np.empty(len(score), dtype=np.int64)
    places_N = place_in_groups(order_by_score(score), labels)
    first = 0
    rows = np.lexsort((places_N, labels))
    sizes_C = np.bincount(labels)
    for members in np.split(rows, np.cumsum(sizes_C)[:-1]):
        if len(members) == 0:
            continue
        values = score[members].astype(np.float64)
        num_strata = min(_MOST_STRATA, max(1, len(members) // _ROWS_PER_STRATUM))
        cut = int(_TAIL * len(members))
        high, low = values[cut], values[len(members) - 1 - cut]
        width = (high - low) / num_strata
        places = np.zeros(len(members)) if width == 0 else np.floor((high - values) / width)
        strata_N[members] = first + np.clip(places, 0, num_strata - 1).astype(np.int64)
        first += num_strata
    return strata_N
