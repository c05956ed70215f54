"""Probabilities averaged over the epochs, for every example.

Shape suffixes: N examples, B of a batch, C classes.
"""

import torch
from torch import Tensor


class RunningProbabilities:
    """Mean of the class probabilities an example was given, over its visits. Memory: N x C float32.

    Example:
        >>> running = RunningProbabilities(2, 2, torch.device("cpu"))
        >>> running.add(torch.tensor([1]), torch.tensor([[0.25, 0.75]]))
        >>> running.add(torch.tensor([1]), torch.tensor([[0.75, 0.25]]))
        >>> running.average()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    def __init__(self, num_examples: int, num_classes: int, device: torch.device) -> None:
        self.sums_NC = torch.zeros(num_examples, num_classes, device=device)
        self.visits_N = torch.zeros(num_examples, device=device)

    def add(self, rows: Tensor, probabilities: Tensor) -> None:
        """Add one visit of each of ``rows`` (B,), which are distinct, with probabilities (B, C)."""
        self.sums_NC.index_add_(0, rows, probabilities.to(self.sums_NC.dtype))
        self.visits_N.index_add_(0, rows, torch.ones_like(rows, dtype=self.visits_N.dtype))

    def average(self) -> Tensor:
        """Return the averages (N, C); uniform for an example never visited."""
        uniform = 1.0 / self.sums_NC.shape[1]
        means_NC = self.sums_NC / self.visits_N.clamp_min(1.0).unsqueeze(1)
        return torch.where(self.visits_N.unsqueeze(1) > 0, means_NC, uniform)

    def average_given(self, rows: Tensor, labels: Tensor, probabilities: Tensor) -> Tensor:
        """Return, for each of ``rows``, the average probability of its label (B,), this visit included."""
        given_B = probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
        return (self.sums_NC[rows, labels] + given_B) / (self.visits_N[rows] + 1.0)

    def forget(self) -> None:
        """Begin anew."""
        self.sums_NC.zero_()
        self.visits_N.zero_()

    def export(self) -> dict[str, Tensor]:
        """Return the memory itself by name: what a checkpoint copies from and restores into."""
        return {"sums": self.sums_NC, "visits": self.visits_N}
