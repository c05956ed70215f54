"""Area under the margin."""

from torch import Tensor

from sama_core.features import compute_margins
from sama_core.scores.tracked import AbstractAveragedScore


class AumScore(AbstractAveragedScore):
    """score = logit of the given label minus the largest other logit, averaged over all epochs.

    noise_score = (1 - score / (1 + |score|)) / 2: falling in the score, 0.5 where the margin averages to 0.

    References:
        Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS 2020.
    """

    name = "aum"

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the margins (B,)."""
        return compute_margins(logits, labels)

    def list_epochs(self, num_epochs: int) -> range:
        """Return them all."""
        return range(num_epochs)

    def judge_averages(self, averages: Tensor) -> tuple[Tensor, Tensor]:
        """Return the margin and its mapping to [0, 1]."""
        return averages, 0.5 * (1.0 - averages / (1.0 + averages.abs()))
