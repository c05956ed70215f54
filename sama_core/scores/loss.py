"""The mean loss late in plain training."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sama_core.scores.tracked import AbstractAveragedScore


class LossScore(AbstractAveragedScore):
    """score = -mean cross-entropy of the given label over the last half of the epochs; noise_score = 1 - exp(score).

    exp(score) is the geometric mean of the given label's probability over these epochs.
    """

    name = "loss"

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses (B,)."""
        return cross_entropy(logits, labels, reduction="none")

    def list_epochs(self, num_epochs: int) -> range:
        """Return the last half."""
        return range(num_epochs // 2, num_epochs)

    def judge_averages(self, averages: Tensor) -> tuple[Tensor, Tensor]:
        """Return -loss and 1 - exp(-loss)."""
        return -averages, -torch.expm1(-averages)
