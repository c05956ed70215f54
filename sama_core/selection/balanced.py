"""The rule ``balanced``: by score within each class, every class in proportion to its size."""

import numpy as np
from numpy.typing import NDArray

from sama_core.selection.floor import place_in_groups
from sama_core.selection.top import order_by_score


def order_by_class(score: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row numbers so that each class has its own share of every prefix, its best scores first.

    Shapes: score (N,), labels (N,) -> (N,).

    Example:
        >>> order_by_class(np.array([0.9, 0.8, 0.7, 0.1], dtype=np.float32), np.array([0, 0, 1, 1])).tolist()
        [0, 2, 1, 3]
    """
    return share_out(order_by_score(score), labels)


def share_out(order: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of an order dealt out to the classes in proportion; the rows of one class keep their order.

    The j-th of n rows of a class (from 0) is due at the share (j + 1/2) / n of the whole.

    Shapes: order (N,) row numbers, labels (N,) -> (N,).

    Example:
        >>> share_out(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1])).tolist()
        [0, 2, 1, 3]
    """
    due_N = (place_in_groups(order, labels) + 0.5) / np.bincount(labels, minlength=1)[labels]
    return order[np.argsort(due_N[order], kind="stable")]
