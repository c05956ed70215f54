"""What a curation decides about each example."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core.types import JSON


@dataclass(frozen=True)
class Decisions:
    """One number of each kind per example, in row order; every array has length N.

    Attributes:
        method: name of the method that decided.
        weight: float32, loss multiplier, mean 1 over the examples.
        weight_std: float32, spread of the weight over the averaged checkpoints (0 where there is nothing to spread).
        score: float32, higher = more worth keeping.
        noise_score: float32 in [0, 1], higher = more likely mislabelled.
        suggested: int64, the class the evidence points to.
        label_confidence: float32 in [0, 1], averaged probability of ``suggested``.
        probabilities: float32 (N, C), probabilities averaged over the epochs; None where the method trains nothing.
        facts: how it was done (route and its reason, steps, meta steps), for the manifest.
    """

    method: str
    weight: NDArray[np.float32]
    weight_std: NDArray[np.float32]
    score: NDArray[np.float32]
    noise_score: NDArray[np.float32]
    suggested: NDArray[np.int64]
    label_confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None
    facts: Mapping[str, JSON] = field(default_factory=dict)


def decide_from_training(
    method: str,
    labels: Tensor,
    probabilities: Tensor,
    checkpoints: Tensor,
    facts: Mapping[str, JSON],
) -> Decisions:
    """Return the decisions of a learned reweighting."""
    labels_N, average_NC = labels.cpu(), probabilities.cpu()
    weight_N, spread_N = average_checkpoints(checkpoints.cpu())
    noise_N = score_noise(average_NC, labels_N)
    confidence_N, suggested_N = average_NC.max(1)
    score_N = 1 - noise_N
    return Decisions(
        method=method,
        weight=weight_N.numpy().astype(np.float32),
        weight_std=spread_N.numpy().astype(np.float32),
        score=score_N.numpy().astype(np.float32),
        noise_score=noise_N.numpy().astype(np.float32),
        suggested=suggested_N.numpy(),
        label_confidence=confidence_N.numpy().astype(np.float32),
        probabilities=average_NC.numpy().astype(np.float32),
        facts=facts,
    )


def average_checkpoints(c):
    seen = torch.isfinite(c)
    n = seen.sum(0)
    c = torch.where(seen, c, 0.0).double()
    m = c.sum(0) / n
    v = (torch.where(seen, c - m, 0.0) ** 2).sum(0) / n
    return m / m.mean(), v.sqrt()


def score_noise(p, y):
    return 1 - p.gather(1, y[:, None]).squeeze(1)
