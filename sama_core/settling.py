"""When a ranking has settled: the rank correlation between successive snapshots of a score."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sama_core.checkpoint import restore_tensors

SETTLED = 0.995
NUM_IN_A_ROW = 2


def correlate_ranks(first: Tensor, second: Tensor) -> float:
    """Return Spearman's rank correlation of two scores of the same examples; equal scores share their mean rank.

    Examples that either score does not know (NaN) are left out. A score without an order, because it is constant or
    knows fewer than two examples, correlates with nothing: 0.

    Shapes: first (N,), second (N,).

    Example:
        >>> round(correlate_ranks(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 4.0, 9.0])), 9)
        1.0
        >>> correlate_ranks(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 5.0]))
        0.0
    """
    known = torch.isfinite(first) & torch.isfinite(second)
    ranks = [_rank(score[known]) for score in (first, second)]
    centred = [r - r.mean() for r in ranks] if len(ranks[0]) > 1 else []
    if not centred or any(bool((r == 0).all()) for r in centred):
        return 0.0
    product = (centred[0] * centred[1]).sum() / (centred[0].square().sum() * centred[1].square().sum()).sqrt()
    return float(product.clamp(-1.0, 1.0))


def _rank(score: Tensor) -> Tensor:
    """Return the ranks of a score in double precision, equal scores sharing their mean rank."""
    _, places, sizes = torch.unique(score, return_inverse=True, return_counts=True)
    mean_ranks: Tensor = sizes.cumsum(0).double() - (sizes.double() - 1.0) / 2.0
    return mean_ranks[places]


class RankingWatch:
    """Sees snapshots of a score and says when its ranking has settled.

    Settled means that the rank correlation of a snapshot with the one before was at least ``threshold``, and so
    ``num_in_a_row`` times without a break. Take the snapshots at equal distances, such as once an epoch, of a score
    that moves (an average over all epochs settles by itself: the n-th epoch moves it by 1/n).

    Args:
        num_examples: N.
        threshold: least rank correlation, -1 to 1.
        num_in_a_row: how often.

    Attributes:
        correlation: of the last two snapshots; NaN before there were two.

    Example:
        >>> watch, score = RankingWatch(3), torch.tensor([0.1, 0.2, 0.3])
        >>> [watch.observe(score) for _ in range(3)]
        [False, False, True]
    """

    def __init__(self, num_examples: int, threshold: float = SETTLED, num_in_a_row: int = NUM_IN_A_ROW) -> None:
        self.threshold, self.num_in_a_row = threshold, num_in_a_row
        self.correlation = float("nan")
        self._last = torch.full((num_examples,), torch.nan)
        self._num_seen = self._num_settled = 0

    def observe(self, scores: Tensor) -> bool:
        """Take in a snapshot (N,), NaN for unknown examples, and return whether the ranking has settled."""
        current = scores.detach().cpu().float()
        if self._num_seen:
            self.correlation = correlate_ranks(self._last, current)
            self._num_settled = self._num_settled + 1 if self.correlation >= self.threshold else 0
        self._last = current.clone()
        self._num_seen += 1
        return self.is_settled

    @property
    def is_settled(self) -> bool:
        """True once the ranking has held still long enough."""
        return self._num_settled >= self.num_in_a_row

    def export(self) -> dict[str, Tensor]:
        """Return the whole state as copies."""
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """Put an export back; with a prefix, the tensors under ``prefix/``.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        held = self._tensors()
        restore_tensors(held, tensors, prefix)
        self._num_seen, self._num_settled = (int(count) for count in held["counts"])
        self.correlation = float(held["correlation"])

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "last": self._last,
            "counts": torch.tensor([self._num_seen, self._num_settled]),
            "correlation": torch.tensor(self.correlation, dtype=torch.float64),
        }


class EpochWatch:
    """Says when the ranking by each epoch's own probability of the given label has settled.

    It looks at the epochs of the second half of a training, at the end of each: earlier ones may hold still while the
    network has learned the easy examples alone.

    Args:
        num_examples: N.
        num_epochs: of the whole training.

    Attributes:
        settled_after: epochs done when the ranking had settled; 0 before.

    Example:
        >>> watch, once = EpochWatch(3, num_epochs=6), torch.tensor([0.1, 0.2, 0.3])
        >>> [watch.observe(epoch, epoch * once) for epoch in (1, 2, 3, 4, 5, 6)]
        [False, False, False, False, False, True]
        >>> watch.settled_after, str(watch)
        (6, 'the ranking settled after epoch 6 of 6: rank correlation 1.000')
    """

    def __init__(self, num_examples: int, num_epochs: int) -> None:
        self.settled_after, self._num_epochs = 0, num_epochs
        self._watch = RankingWatch(num_examples)
        self._before_N = torch.zeros(num_examples)

    def __str__(self) -> str:
        correlation = f"rank correlation {self._watch.correlation:.3f}"
        return f"the ranking settled after epoch {self.settled_after} of {self._num_epochs}: {correlation}"

    def observe(self, epoch: int, sums: Tensor) -> bool:
        """Take in what an epoch has shown, and return whether the ranking has settled.

        Args:
            epoch: epochs done, this one included.
            sums: (N,) probability of the given label, added up over all epochs so far.
        """
        now_N = sums.detach().cpu().float()
        if 2 * epoch > self._num_epochs and self._watch.observe(now_N - self._before_N) and not self.settled_after:
            self.settled_after = epoch
        self._before_N = now_N.clone()
        return self.settled_after > 0

    def export(self) -> dict[str, Tensor]:
        """Return the whole state as copies."""
        return {**self._watch.export(), **{name: tensor.clone() for name, tensor in self._tensors().items()}}

    def restore(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """Put an export back; with a prefix, the tensors under ``prefix/``.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        self._watch.restore(tensors, prefix)
        held = self._tensors()
        restore_tensors(held, tensors, prefix)
        self.settled_after = int(held["settled_after"])

    def _tensors(self) -> dict[str, Tensor]:
        return {"before": self._before_N, "settled_after": torch.tensor(self.settled_after)}
