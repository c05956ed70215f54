"""Decisions of the methods whose only evidence is a probability of each class."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from sama_core.decisions import Decisions, make_decisions, score_noise
from sama_core.types import JSON


def decide_by_probabilities(
    method: str, probabilities: Tensor, labels: Tensor, evidence: str, facts: Mapping[str, JSON]
) -> Decisions:
    """Return decisions by p of the given label: noise_score = 1 - p, score = p; the likeliest class is suggested.

    Shapes: probabilities (N, C), labels (N,).

    Args:
        method: its name.
        probabilities: of each class to be the true one.
        labels: given labels.
        evidence: name that p bears among the evidence.
        facts: for the manifest.

    Example:
        >>> import torch
        >>> shares = torch.tensor([[0.25, 0.75]])
        >>> decided = decide_by_probabilities("trusted-model", shares, torch.tensor([0]), "trusted_p_given", {})
        >>> decided.noise_score.tolist(), decided.score.tolist(), decided.suggested.tolist()
        ([0.75], [0.25], [1])
    """
    noise_N = score_noise(probabilities, labels)
    decisions = make_decisions(method, probabilities, scores=1.0 - noise_N, noise_scores=noise_N, facts=facts)
    return replace(decisions, evidence={evidence: (1.0 - noise_N).numpy().astype(np.float32)})
