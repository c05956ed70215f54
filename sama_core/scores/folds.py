"""Which part of a cross-validation each example belongs to."""

import torch
from torch import Tensor

from sama_core.randomness import permute


def assign_folds(labels: Tensor, num_folds: int, seed: int, purpose: str) -> Tensor:
    """Return the fold of each example, int64 (N,): sizes differ by one at most, and so do those within a class.

    Args:
        labels: int64 (N,), on the CPU.
        num_folds: 1 to N.
        seed: of the draw.
        purpose: name of the draw.

    Example:
        >>> folds = assign_folds(torch.tensor([0, 0, 0, 1, 1, 1]), 3, seed=0, purpose="folds")
        >>> sorted(folds[:3].tolist()), sorted(folds[3:].tolist())
        ([0, 1, 2], [0, 1, 2])
    """
    order_N = permute(len(labels), seed, purpose)
    by_class_N = order_N[torch.argsort(labels[order_N], stable=True)]
    folds_N = torch.empty(len(labels), dtype=torch.int64)
    folds_N[by_class_N] = torch.arange(len(labels)) % num_folds
    return folds_N
