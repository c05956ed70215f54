"""A new last layer on the base network's representation, fitted to the trusted labels, cross-fitted.

Shape suffixes: N examples, M trusted ones, D dimensions, C classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sama_core.detection.fitting import minimise

_DECAY = 1e-2


def refit_heads(vectors: Tensor, trusted_rows: Tensor, truth: Tensor, folds: Tensor, num_classes: int) -> Tensor:
    """Return the log-probability of each class under linear heads fitted on the trusted examples, (N, C).

    One head a fold, each fitted on the other folds. A trusted example, and one that equals it, is judged by the head
    that did not see its label, every other example by the geometric mean of all heads.

    Args:
        vectors: (N, D) representation of every example.
        trusted_rows: (M,) rows of the trusted examples among them.
        truth: (M,) their trusted labels.
        folds: (N,) fold of each example that is a trusted one or equals one, 0..K-1; -1 of every other.
        num_classes: C.

    Example:
        >>> vectors = torch.tensor([[1.0], [1.1], [-1.0], [-1.1], [0.9]])
        >>> rows, truth, folds = torch.arange(4), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1, -1])
        >>> refit_heads(vectors, rows, truth, folds, 2).argmax(1).tolist()
        [0, 0, 1, 1, 0]
    """
    inputs_ND = _standardise(vectors)
    num_folds = int(folds.max()) + 1
    sums_NC = torch.zeros(len(vectors), num_classes, dtype=torch.float64)
    held_NC = torch.zeros_like(sums_NC)
    for fold in range(num_folds):
        taught, held = folds[trusted_rows] != fold, folds == fold
        head_DC = _fit(inputs_ND[trusted_rows[taught]], truth[taught], num_classes)
        logs_NC = (inputs_ND @ head_DC).log_softmax(1)
        sums_NC += logs_NC
        held_NC[held] = logs_NC[held]
    logs_NC = (sums_NC / num_folds).log_softmax(1)
    return torch.where((folds >= 0).unsqueeze(1), held_NC, logs_NC)


def _standardise(vectors: Tensor) -> Tensor:
    """Return the vectors with a constant dimension added, scaled so that their length is of the order of 1."""
    doubles_ND = vectors.double()
    centred_ND = (doubles_ND - doubles_ND.mean(0)) / doubles_ND.std(0, correction=0).clamp_min(1e-6)
    ones_N1 = torch.ones(len(vectors), 1, dtype=torch.float64)
    scaled_ND: Tensor = torch.cat([centred_ND, ones_N1], dim=1) / (vectors.shape[1] + 1) ** 0.5
    return scaled_ND


def _fit(inputs: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the weights (D, C) of a multinomial logistic regression with weight decay."""
    weights_DC = torch.zeros(inputs.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    minimise(
        lambda: cross_entropy(inputs @ weights_DC, labels) + 0.5 * _DECAY * weights_DC.square().sum(), [weights_DC]
    )
    return weights_DC.detach()
