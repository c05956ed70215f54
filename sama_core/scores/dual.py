"""Difficulty and uncertainty over windows of early training."""

import torch
from torch import Tensor

from sama_core.errors import OptionsError
from sama_core.options import CurationOptions
from sama_core.scores.tracked import AbstractTrackedScore, Memory, add_visit, average_visits

_MOST_EPOCHS, _LONGEST_WINDOW = 30, 10


class DualScore(AbstractTrackedScore):
    """score = mean over windows of J epochs of (1 - mean p) * std p, p the probability of the given label.

    The mean and the standard deviation (of the sample: divided by J - 1) are those of p in the window; the windows
    begin at every epoch up to T - J, and the training ends after T epochs. J = 10 and T = 30 as in the paper for
    CIFAR; trainings shorter than T epochs are used whole, with windows of a third of them.

    A pruning score: it is high for examples that are hard and undecided, and these are kept, as in the paper, which
    draws the kept ones by a Beta distribution over the mean p at small keep fractions: a matter of selection, for
    which ``evidence["average_p_given"]`` carries that mean. noise_score is the score itself, which lies in [0, 1],
    for tables of detection; an example that stays wrong throughout scores low, so it detects poorly by design.

    Args:
        options: at least 2 epochs.

    Raises:
        OptionsError: a single epoch.

    References:
        Cho et al., Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
        Uncertainty, ICML 2025, arXiv:2502.06905.
    """

    name = "dual"

    def __init__(self, options: CurationOptions) -> None:
        super().__init__(options)
        if options.epochs < 2:
            raise OptionsError(f"epochs: {options.epochs}; wanted at least 2, since dual sees how probabilities change")
        self.window = min(_LONGEST_WINDOW, max(2, min(options.epochs, _MOST_EPOCHS) // 3))

    def list_epochs(self, num_epochs: int) -> range:
        """Return the first T."""
        return range(min(num_epochs, _MOST_EPOCHS))

    def allocate(self, num_examples: int, device: torch.device) -> Memory:
        """Return the last J probabilities, and the sum over the windows so far and their number."""
        names = ("sums", "visits")
        memory = {name: torch.zeros(num_examples, device=device) for name in names}
        return {**memory, "recent": torch.zeros(num_examples, self.window, device=device)}

    def remember(self, memory: Memory, rows: Tensor, logits: Tensor, labels: Tensor, visit: int) -> None:
        """Remember p, and add the window that ends here."""
        given_B = logits.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
        memory["recent"][rows, visit % self.window] = given_B.to(memory["recent"].dtype)
        if visit >= self.window - 1:
            recent_BJ = memory["recent"][rows]
            add_visit(memory, rows, (1.0 - recent_BJ.mean(1)) * recent_BJ.std(1))

    def judge(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the average over the windows, twice."""
        averages_N = average_visits(memory)
        return averages_N, averages_N.clamp(0.0, 1.0)
