"""Logits kept within bounds, so that no later evidence comes too late."""

import torch
from torch import Tensor


def bound_logits(logits: Tensor, limit: float = 4.0) -> Tensor:
    """Return ``logits`` squeezed into (-limit, limit): 0 stays 0, with slope 1.

    An unbounded logit runs off while every example still helps; the sigmoid's derivative then rounds to 0, and no later
    evidence brings the weight back. This slope falls with the square of the logit only.

    Shapes: any, kept.

    Args:
        logits: any numbers.
        limit: above 0.

    Example:
        >>> bound_logits(torch.tensor([0.0, 4.0, -1e9]))
        tensor([ 0.,  2., -4.])
    """
    return logits / (1.0 + logits.abs() / limit)


def weigh_logits(logits: Tensor) -> Tensor:
    """Return the weight 2 sigmoid(bounded logit): between 0.036 and 1.964, and 1 for a logit of 0.

    Shapes: any, kept.

    Example:
        >>> weigh_logits(torch.tensor([0.0, 1e9, -1e9]))
        tensor([1.0000, 1.9640, 0.0360])
    """
    return 2.0 * torch.sigmoid(bound_logits(logits))
