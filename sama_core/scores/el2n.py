"""Error norm early in training."""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sama_core.scores.tracked import AbstractAveragedScore, list_early_epochs


class El2nScore(AbstractAveragedScore):
    """score = Euclidean norm of (probabilities - one-hot given label), averaged over the early epochs.

    A pruning score: it is hardness, and hard examples are kept, as in the paper; mislabelled ones are hard too, so
    data with wrong labels wants the hardest cut off first. noise_score = score / sqrt(2), the same hardness in
    [0, 1], for tables of detection.

    The paper averages one early epoch (of 200, about the twentieth) over ten trainings from different seeds; here one
    training gives the average over its early epochs, a quarter of them but for the first, and ends with them: about
    0.3 of a plain training.

    References:
        Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021.
    """

    name = "el2n"

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the norms (B,)."""
        errors_BC = logits.softmax(1) - one_hot(labels, logits.shape[1])
        norms_B: Tensor = torch.linalg.vector_norm(errors_BC, dim=1)
        return norms_B

    def list_epochs(self, num_epochs: int) -> range:
        """Return a quarter of them, but for the first."""
        return list_early_epochs(num_epochs, 0.25)

    def judge_averages(self, averages: Tensor) -> tuple[Tensor, Tensor]:
        """Return the norm and its share of the largest possible."""
        return averages, (averages / math.sqrt(2.0)).clamp(0.0, 1.0)
