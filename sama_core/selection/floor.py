"""The class floor: whatever a rule prefers, no class falls below its share of any prefix."""

from fractions import Fraction
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray


def place_in_groups(order: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each row among the rows of its group, 0 first, where the rows stand in ``order``.

    Shapes: order (N,) row numbers, groups (N,) 0 or more -> (N,).

    Example:
        >>> place_in_groups(np.array([2, 0, 1]), np.array([0, 1, 0])).tolist()
        [1, 0, 0]
    """
    sorted_N = order[np.argsort(groups[order], kind="stable")]
    sizes_G = np.bincount(groups, minlength=1)
    starts_G = np.cumsum(sizes_G) - sizes_G
    places_N = np.empty(len(order), dtype=np.int64)
    places_N[sorted_N] = np.arange(len(order)) - np.repeat(starts_G, sizes_G)
    return places_N


def keep_floor(order: NDArray[np.int64], labels: NDArray[np.int64], class_floor: float) -> NDArray[np.int64]:
    """Return the order with rows moved forward where a class would fall below its floor, and no further.

    Among the first k of N rows each class c then holds at least ``floor(class_floor * k / N * n_c)`` of its n_c rows;
    the floor counts to the thousandth. The rows of one class keep their order.

    Shapes: order (N,) row numbers, labels (N,) -> (N,).

    Example:
        >>> keep_floor(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]), 1.0).tolist()
        [0, 2, 1, 3]
    """
    wanted_N = np.empty(len(order), dtype=np.int64)
    wanted_N[order] = np.arange(len(order))
    deadlines_N = _compute_deadlines(place_in_groups(order, labels), labels, class_floor)
    if (wanted_N <= deadlines_N).all():
        return order
    return _meet_deadlines(order, wanted_N, deadlines_N)


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


def _meet_deadlines(
    order: NDArray[np.int64], wanted: NDArray[np.int64], deadlines: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return an order within the deadlines: from the last rank down, the least wanted row that may stand there.

    There always is one: at most floor * k <= k rows are due among the first k.
    """
    num_rows = len(wanted)
    by_deadline = np.argsort(-deadlines, kind="stable")
    met_N = np.empty(num_rows, dtype=np.int64)
    heap: list[int] = []
    cursor = 0
    for rank in range(num_rows - 1, -1, -1):
        while cursor < num_rows and deadlines[by_deadline[cursor]] >= rank:
            heappush(heap, -int(wanted[by_deadline[cursor]]))
            cursor += 1
        met_N[rank] = order[-heappop(heap)]
    return met_N
