"""Spreading: an order of points in which every prefix lies all over the cloud.

Shape suffixes: N points, D dimensions, M nodes of a level.
"""

import numpy as np
from numpy.typing import NDArray

_LEAF = 4
_SAMPLE = 64
_SEED = 0x5AA3


def spread_points(points: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each point in an order of its group whose every prefix is spread over the group.

    A tree over each group halves it, and each half again, at the median of the dimension that varies most; the order
    takes turns between the two halves of every node, a (seeded) coin deciding which one begins. So the first 2^d
    points come from 2^d different parts of equal size: a stratified sample of the density, which neither thins out
    crowded places beyond their share nor runs after outliers as farthest-first orders do.

    Time O(N D log(N)) and memory O(N D), for all groups together.

    Shapes: points (N, D), groups (N,) -> (N,).

    Args:
        points: finite.
        groups: number of each point's group, 0 or more.

    Returns:
        int64: in a group of n points each of 0..n-1 once. The same points give the same order.

    Example:
        >>> points = np.array([[0.0], [0.1], [5.0], [5.1]], dtype=np.float32)
        >>> places = spread_points(points, np.zeros(4, dtype=np.int64))
        >>> sorted(bool(points[place, 0] > 1) for place in np.argsort(places)[:2].tolist())
        [False, True]
    """
    rows_N = np.argsort(groups, kind="stable")
    sizes_M = np.bincount(groups)
    sizes_M = sizes_M[sizes_M > 0]
    tree = _Tree(points)
    while len(rows_N):
        rows_N, sizes_M = tree.settle_leaves(rows_N, sizes_M)
        rows_N, sizes_M = tree.halve(rows_N, sizes_M)
    return tree.places_N


class _Tree:
    """The levels of the trees over all groups, from the roots down; nodes are consecutive parts of the rows.

    Attributes:
        places_N: each row's place, as far as the levels so far have settled it.
    """

    def __init__(self, points_ND: NDArray[np.float32]) -> None:
        self._points_ND = points_ND
        self._generator = np.random.default_rng(_SEED)
        self._stride = 1
        self.places_N = np.zeros(len(points_ND), dtype=np.int64)

    def settle_leaves(
        self, rows_N: NDArray[np.int64], sizes_M: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the rows of small nodes their places, in random order, and return the rows and sizes of the others."""
        is_leaf_M = sizes_M <= _LEAF
        is_leaf_N = np.repeat(is_leaf_M, sizes_M)
        leaf_sizes = sizes_M[is_leaf_M]
        nodes = np.repeat(np.arange(len(leaf_sizes)), leaf_sizes)
        shuffled = rows_N[is_leaf_N][np.lexsort((self._generator.random(len(nodes)), nodes))]
        self.places_N[shuffled] += self._stride * _count_within(leaf_sizes)
        return rows_N[~is_leaf_N], sizes_M[~is_leaf_M]

    def halve(
        self, rows_N: NDArray[np.int64], sizes_M: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Halve every node; the half that begins is the larger one where the sizes differ."""
        nodes_N = np.repeat(np.arange(len(sizes_M)), sizes_M)
        dimensions_M = _find_widest(self._points_ND, rows_N, sizes_M)
        values_N = self._points_ND[rows_N, dimensions_M[nodes_N]]
        rows_N = rows_N[np.lexsort((values_N, nodes_N))]
        high_begins_M = self._generator.random(len(sizes_M)) < 0.5
        low_sizes_M = np.where(high_begins_M, sizes_M // 2, sizes_M - sizes_M // 2)
        is_high_N = _count_within(sizes_M) >= low_sizes_M[nodes_N]
        self.places_N[rows_N] += self._stride * (is_high_N != high_begins_M[nodes_N])
        self._stride *= 2
        halves = np.stack((low_sizes_M, sizes_M - low_sizes_M), axis=1).reshape(-1)
        return rows_N, halves


def _find_widest(
    points_ND: NDArray[np.float32], rows_N: NDArray[np.int64], sizes_M: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the dimension of the largest variance of each node, judged by at most ``_SAMPLE`` rows, evenly chosen."""
    if points_ND.shape[1] == 1:
        return np.zeros(len(sizes_M), dtype=np.int64)
    counts_M = np.minimum(sizes_M, _SAMPLE)
    starts_M = np.cumsum(sizes_M) - sizes_M
    steps = _count_within(counts_M) * np.repeat(sizes_M, counts_M) // np.repeat(counts_M, counts_M)
    sample = rows_N[np.repeat(starts_M, counts_M) + steps]
    firsts_M = np.cumsum(counts_M) - counts_M
    variances = np.empty((len(sizes_M), points_ND.shape[1]))
    for dimension in range(points_ND.shape[1]):
        values = points_ND[sample, dimension].astype(np.float64)
        mean_M = np.add.reduceat(values, firsts_M) / counts_M
        variances[:, dimension] = np.add.reduceat((values - np.repeat(mean_M, counts_M)) ** 2, firsts_M)
    widest: NDArray[np.int64] = variances.argmax(axis=1)
    return widest


def _count_within(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, .. within each of consecutive parts of these sizes."""
    starts = np.cumsum(sizes) - sizes
    within: NDArray[np.int64] = np.arange(int(sizes.sum())) - np.repeat(starts, sizes)
    return within
