"""What a curation decides about each example."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
