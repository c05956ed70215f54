"""Losses: functions of a network's outputs and of the batch that gave them.

Shape suffixes: B examples of a batch, C classes.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sama_core.batch import Batch
from sama_core.errors import NetworkError

LossFunction: TypeAlias = Callable[[Any, Batch], Tensor]
"""Takes what the network returned and its batch. A base loss gives (B,), or (B, K) for K terms an example; a meta loss
gives a scalar."""


def check_logits(logits: Tensor, labels: Tensor, num_classes: int | None = None) -> None:
    """Refuse logits that are not one row of class scores for each example.

    Shapes: logits (B, C), labels (B,).

    Args:
        logits: what the network returned.
        labels: of the examples.
        num_classes: C; None takes any.

    Raises:
        NetworkError: another shape.

    Example:
        >>> check_logits(torch.zeros(2, 3), torch.tensor([0, 2]))
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != len(labels):
        seen = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise NetworkError(
            f"network: returned {seen} for {len(labels)} examples; wanted ({len(labels)}, number of classes)"
        )
    if num_classes is not None and logits.shape[1] != num_classes:
        raise NetworkError(
            f"network: returned {logits.shape[1]} logits an example; wanted {num_classes}, one for each class"
        )


def given_label_losses(outputs: Any, batch: Batch) -> Tensor:
    """Return the cross-entropy of each example's given label, in single precision or better.

    Shapes: outputs (B, C) -> (B,).

    Raises:
        NetworkError: the outputs are not of shape (B, C).

    Example:
        >>> batch = Batch(torch.arange(2), torch.zeros(2, 1), torch.tensor([0, 1]), seed=0)
        >>> given_label_losses(torch.zeros(2, 2), batch)
        tensor([0.6931, 0.6931])
    """
    check_logits(outputs, batch.labels)
    return cross_entropy(widen(outputs), batch.labels, reduction="none")


def class_losses(outputs: Any, batch: Batch) -> Tensor:
    """Return minus the log-probability of every class: the terms that a soft label weighs.

    Shapes: outputs (B, C) -> (B, C).

    Raises:
        NetworkError: the outputs are not of shape (B, C).

    Example:
        >>> batch = Batch(torch.arange(1), torch.zeros(1, 1), torch.tensor([0]), seed=0)
        >>> class_losses(torch.zeros(1, 2), batch)
        tensor([[0.6931, 0.6931]])
    """
    check_logits(outputs, batch.labels)
    return -widen(outputs).log_softmax(1)


def soft_label_losses(outputs: Any, batch: Batch, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each example's soft label: for one-hot targets that of the given label.

    Shapes: outputs (B, C), targets (B, C) -> (B,).

    Example:
        >>> batch = Batch(torch.arange(1), torch.zeros(1, 1), torch.tensor([0]), seed=0)
        >>> soft_label_losses(torch.zeros(1, 2), batch, torch.tensor([[0.75, 0.25]]))
        tensor([0.6931])
    """
    losses_BC = class_losses(outputs, batch)
    return (targets.to(losses_BC.dtype) * losses_BC).sum(1)


def mean_cross_entropy(outputs: Any, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of the batch: the meta loss of data curation.

    Shapes: outputs (B, C) -> ().

    Example:
        >>> batch = Batch(torch.arange(2), torch.zeros(2, 1), torch.tensor([0, 1]), seed=0)
        >>> mean_cross_entropy(torch.zeros(2, 2), batch)
        tensor(0.6931)
    """
    return given_label_losses(outputs, batch).mean()


def mean_loss(coefficients: Tensor, losses: Tensor) -> Tensor:
    """Return the base loss: the terms weighed and summed, averaged over the examples.

    Shapes: both (B,) or both (B, K) -> ().

    Raises:
        NetworkError: the shapes differ.

    Example:
        >>> mean_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0]))
        tensor(1.)
    """
    if coefficients.shape != losses.shape:
        raise NetworkError(
            f"learned: coefficients of shape {tuple(coefficients.shape)} for losses of shape {tuple(losses.shape)}; "
            "wanted the same shape"
        )
    return (coefficients.to(losses.dtype) * losses).sum() / len(losses)


def widen(tensor: Tensor) -> Tensor:
    """Return a half-precision tensor in single precision, any other as it is.

    Example:
        >>> widen(torch.zeros(1, dtype=torch.bfloat16)).dtype, widen(torch.zeros(1, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
