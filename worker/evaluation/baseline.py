"""The cheap baselines: what one plain training on the given labels shows of each row, beside what the method says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]
from torch import Tensor

from sama_core import CurationOptions
from sama_core.batch import Batch
from sama_core.losses import widen
from sama_core.scores.aum import AumScore
from sama_core.scores.loss import LossScore
from service.results.schemas import BaselineSummary

BaselineName = Literal["loss", "aum"]
DESCRIPTIONS: Mapping[BaselineName, str] = {
    "loss": "mean loss of the given label over the last half of the epochs",
    "aum": "margin of the given label, averaged over all epochs",
}
_SHARE_COMPARED = 0.1


@dataclass(frozen=True)
class PlainScores:
    """What a baseline says of each row: score, higher = more worth keeping, and noise score in [0, 1]."""

    score: NDArray[np.float64]
    noise_score: NDArray[np.float64]


class PlainMemory:
    """Remembers the losses and the margins of a plain training, for the scores of the methods `loss` and `aum`.

    It sees the logits that each step computes anyway, so it costs no pass over the network.

    Args:
        options: of the training.
        num_examples: N.
        device: where the training is.
    """

    def __init__(self, options: CurationOptions, num_examples: int, device: torch.device) -> None:
        self._num_epochs = options.epochs
        self._scores: dict[BaselineName, LossScore | AumScore] = {"loss": LossScore(options), "aum": AumScore(options)}
        self._memories = {name: score.allocate(num_examples, device) for name, score in self._scores.items()}

    def see(self, epoch: int, batch: Batch, logits: Tensor) -> None:
        """Remember a batch of an epoch (0-based) and its logits (B, C)."""
        for name, score in self._scores.items():
            counted = score.list_epochs(self._num_epochs)
            if epoch in counted:
                visit = epoch - counted.start
                score.remember(self._memories[name], batch.rows, widen(logits), batch.labels, visit)

    def export(self) -> dict[str, Tensor]:
        """Return the memory by flat name."""
        return {f"{name}-{part}": tensor for name, memory in self._memories.items() for part, tensor in memory.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an export back."""
        for name, tensor in self.export().items():
            tensor.copy_(tensors[name])

    def judge(self) -> dict[str, Tensor]:
        """Return scores and noise scores (N,) of each baseline by flat name; `read_scores` reads them."""
        judged: dict[str, Tensor] = {}
        for name, score in self._scores.items():
            memory = {part: tensor.cpu() for part, tensor in self._memories[name].items()}
            judged[f"{name}-score"], judged[f"{name}-noise"] = score.judge(memory)
        return judged


def read_scores(result: Mapping[str, Tensor]) -> dict[BaselineName, PlainScores]:
    """Return what each baseline says, out of the tensors that `PlainMemory.judge` gave."""
    return {
        name: PlainScores(result[f"{name}-score"].double().numpy(), result[f"{name}-noise"].double().numpy())
        for name in DESCRIPTIONS
    }


def compare_doubts(
    name: BaselineName, noise_score: NDArray[Any], scores: PlainScores, num_doubtful: int
) -> BaselineSummary:
    """Return how far a baseline doubts the rows that the method doubts.

    Args:
        name: of the baseline.
        noise_score: (N,) the method's.
        scores: the baseline's.
        num_doubtful: rows that the method counts as doubtful; a tenth of all stands in where it doubts none.
    """
    num_rows = len(noise_score)
    num_compared = min(num_rows, num_doubtful or max(1, round(_SHARE_COMPARED * num_rows)))
    ours = np.argsort(-noise_score.astype(np.float64), kind="stable")[:num_compared]
    theirs = np.argsort(scores.score, kind="stable")[:num_compared]
    return BaselineSummary(
        name=name,
        description=DESCRIPTIONS[name],
        num_compared=num_compared,
        overlap=len(np.intersect1d(ours, theirs)) / num_compared,
        rank_correlation=_correlate_ranks(noise_score, -scores.score),
    )


def _correlate_ranks(left: NDArray[Any], right: NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation; None where one side does not vary."""
    ranks = [rankdata(values) for values in (left, right)]
    if any(np.ptp(values) == 0 for values in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])
