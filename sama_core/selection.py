"""From scores to a nested order of rows: whatever is kept at a small fraction is kept at a larger one."""

import numpy as np
from numpy.typing import NDArray

RULES = ("top", "balanced")


def order_rows(
    score: NDArray[np.float32], labels: NDArray[np.int64], rule: str, class_floor: float
) -> NDArray[np.int64]:
    """Return rank (N,) int64, 0 = kept first; a row is kept iff rank < num_kept."""
    raise NotImplementedError


def choose_rule(rule: str, keep_fraction: float, labels: NDArray[np.int64]) -> tuple[str, str]:
    """Return the rule to use ("top" or "balanced") and the reason in words; only ``auto`` is decided here."""
    raise NotImplementedError


def num_kept(keep_fraction: float, n_total: int, n_labelled: int) -> int:
    """Return how many rows are kept: round(keep_fraction * n_total), at most n_labelled, at least 1."""
    raise NotImplementedError
