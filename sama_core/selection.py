"""From scores to a nested order of rows: whatever is kept at a small fraction is kept at a larger one too."""

from fractions import Fraction
from heapq import heappop, heappush
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sama_core.errors import OptionsError

RuleName = Literal["top", "balanced"]
RULES: tuple[RuleName, ...] = ("top", "balanced")

_TOP_FROM = 0.7
_FEWEST_KEPT = 20


def order_rows(
    score: NDArray[np.float32], labels: NDArray[np.int64], rule: str = "top", class_floor: float = 0.3
) -> NDArray[np.int64]:
    """Rank the rows so that keeping any number k of them means keeping those of rank below k.

    ``top`` goes by score alone, ``balanced`` gives each class its own share of every prefix; both honour the class
    floor: among the first k of N rows, each class c holds at least ``floor(class_floor * k / N * n_c)`` of its n_c
    rows (the floor counts to the thousandth). A class's own rows always stand in the order of their scores; equal
    scores stand in row order.

    Shapes: score (N,), labels (N,) -> (N,).

    Args:
        score: higher = kept earlier; finite.
        labels: class of each row, 0 or more.
        rule: top or balanced.
        class_floor: 0 (none) to 1 (each class in proportion to its size).

    Returns:
        int64, 0 = kept first, each of 0..N-1 once.

    Raises:
        OptionsError: an unknown rule, a floor outside [0, 1], a score that is not finite, or unequal lengths.

    Example:
        >>> score = np.array([0.9, 0.8, 0.7, 0.1], dtype=np.float32)
        >>> labels = np.array([0, 0, 0, 1])
        >>> order_rows(score, labels, "top", class_floor=0.0).tolist()
        [0, 1, 2, 3]
        >>> order_rows(score, labels, "balanced").tolist()
        [0, 1, 3, 2]
    """
    if rule not in RULES:
        raise OptionsError(f"rule: {rule!r}; wanted one of {', '.join(RULES)}")
    if not 0 <= class_floor <= 1:
        raise OptionsError(f"class_floor: {class_floor!r}; wanted a number from 0 to 1")
    if score.shape != labels.shape or score.ndim != 1:
        raise OptionsError(f"score: shape {score.shape}; wanted one number for each of {len(labels)} labels")
    if not np.isfinite(score).all():
        raise OptionsError("score: holds a number that is not finite; wanted finite numbers only")
    places_N = _place_in_class(score, labels)
    deadlines_N = _compute_deadlines(places_N, labels, class_floor)
    preferred_N = -score.astype(np.float64)
    if rule == "balanced":
        preferred_N = (places_N + 0.5) / np.bincount(labels)[labels]
    wanted_N = np.empty(len(score), dtype=np.int64)
    wanted_N[np.lexsort((places_N, -score.astype(np.float64), preferred_N))] = np.arange(len(score))
    return wanted_N if (wanted_N <= deadlines_N).all() else _meet_deadlines(wanted_N, deadlines_N)


def _place_in_class(score: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each row among its class by falling score, 0 first, equal scores in row order."""
    order_N = np.lexsort((np.arange(len(score)), -score.astype(np.float64), labels))
    sizes_C = np.bincount(labels, minlength=1)
    starts_C = np.concatenate(([0], np.cumsum(sizes_C)[:-1]))
    places_N = np.empty(len(score), dtype=np.int64)
    places_N[order_N] = np.arange(len(score)) - np.repeat(starts_C, sizes_C)
    return places_N


def _compute_deadlines(places: NDArray[np.int64], labels: NDArray[np.int64], class_floor: float) -> NDArray[np.int64]:
    """Return the last rank at which each row still keeps the floor of its class.

    The j-th row of class c (1-based) is due among the first k rows as soon as floor * k / N * n_c reaches j.
    """
    num_rows = len(places)
    share = Fraction(repr(float(class_floor))).limit_denominator(1000)
    if share == 0:
        return np.full(num_rows, num_rows, dtype=np.int64)
    sizes_N = np.bincount(labels, minlength=1)[labels]
    # whole numbers throughout: no rounding decides a row
    due_N = -(-(places + 1) * num_rows * share.denominator // (share.numerator * sizes_N))
    return due_N - 1


def _meet_deadlines(wanted: NDArray[np.int64], deadlines: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ranks within the deadlines: from the last rank down, the least wanted row that may stand there.

    There always is one: at most floor * k <= k rows are due among the first k.
    """
    num_rows = len(wanted)
    by_deadline = np.argsort(-deadlines, kind="stable")
    ranks_N = np.empty(num_rows, dtype=np.int64)
    rows_by_wanted = np.argsort(wanted, kind="stable")
    heap: list[int] = []
    cursor = 0
    for rank in range(num_rows - 1, -1, -1):
        while cursor < num_rows and deadlines[by_deadline[cursor]] >= rank:
            heappush(heap, -int(wanted[by_deadline[cursor]]))
            cursor += 1
        ranks_N[rows_by_wanted[-heappop(heap)]] = rank
    return ranks_N


def choose_rule(rule: str, keep_fraction: float, labels: NDArray[np.int64]) -> tuple[RuleName, str]:
    """Return the rule to select by and the reason in words; only ``auto`` is decided here.

    Args:
        rule: auto, top or balanced.
        keep_fraction: share of the rows to keep, in (0, 1].
        labels: class of each labelled row (N,).

    Returns:
        The rule, and one sentence.

    Raises:
        OptionsError: an unknown rule.

    Example:
        >>> choose_rule("auto", 0.9, np.zeros(1000, dtype=np.int64))[0]
        'top'
        >>> choose_rule("auto", 0.3, np.zeros(1000, dtype=np.int64))[0]
        'balanced'
    """
    for known in RULES:
        if rule == known:
            return known, f"{known}, as asked for"
    if rule != "auto":
        raise OptionsError(f"rule: {rule!r}; wanted one of auto, {', '.join(RULES)}")
    if keep_fraction < _TOP_FROM:
        reason = f"only {keep_fraction:.0%} is kept, and a cut by score alone would thin out the harder classes"
        return "balanced", f"balanced: {reason}"
    sizes_C = np.bincount(labels)
    smallest = keep_fraction * int(sizes_C[sizes_C > 0].min()) if len(labels) else 0.0
    if smallest < _FEWEST_KEPT:
        return "balanced", f"balanced: the smallest class has only {int(sizes_C[sizes_C > 0].min())} rows"
    return "top", f"top: {keep_fraction:.0%} is kept, so only the rows of lowest score go"


def num_kept(keep_fraction: float, n_total: int, n_labelled: int) -> int:
    """Return how many rows are kept: ``keep_fraction`` of the total, rounded, but labelled rows only.

    Args:
        keep_fraction: share of **all** rows, in (0, 1].
        n_total: rows in all.
        n_labelled: rows with a label: the most that can be kept.

    Raises:
        OptionsError: a fraction outside (0, 1].

    Example:
        >>> num_kept(0.8, n_total=10, n_labelled=9), num_kept(1.0, n_total=10, n_labelled=9)
        (8, 9)
    """
    if not 0 < keep_fraction <= 1:
        raise OptionsError(f"keep_fraction: {keep_fraction!r}; wanted a number above 0, at most 1")
    return min(n_labelled, max(1, int(keep_fraction * n_total + 0.5)))
