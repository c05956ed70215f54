"""Which rows make which batch: a pure function of the step number."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sama_core.errors import OptionsError
from sama_core.randomness import permute


class BatchPlan:
    """Batches of a reshuffled pass over the rows, epoch after epoch.

    The rows of an epoch are cut into batches whose sizes differ by one at most, so that no tiny last batch upsets
    BatchNorm or the step size.

    Args:
        num_rows: rows to draw from, numbered 0..num_rows-1.
        batch_size: the largest batch.
        seed: seed of the plan.
        purpose: name of the draw; plans of different purposes are independent.
        num_late: how many of the rows, the last ones, are left out of the first epochs; the batches of these epochs
            are smaller, not fewer. Where that would make them smaller than half, the rows take part several times.
        late_epoch: the epoch (0-based) from which they take part.

    Example:
        >>> plan = BatchPlan(5, 2, seed=0, purpose="batches")
        >>> plan.num_batches, sorted(torch.cat([plan.rows_at(step) for step in range(3)]).tolist())
        (3, [0, 1, 2, 3, 4])
    """

    def __init__(
        self, num_rows: int, batch_size: int, seed: int, purpose: str, *, num_late: int = 0, late_epoch: int = 0
    ) -> None:
        self.num_rows, self._num_late, self._late_epoch = num_rows, num_late, late_epoch
        self.num_batches = -(-num_rows // batch_size)
        self._seed, self._purpose = seed, purpose
        self._epoch, self._order_N = -1, torch.empty(0, dtype=torch.int64)

    def rows_at(self, step: int) -> Tensor:
        """Return the rows of batch ``step`` (0-based, counted over all epochs), int64 on the CPU."""
        epoch, index = divmod(step, self.num_batches)
        order_N = self.order_of(epoch)
        start = index * len(order_N) // self.num_batches
        return order_N[start : (index + 1) * len(order_N) // self.num_batches]

    def order_of(self, epoch: int) -> Tensor:
        """Return the order of the rows in an epoch."""
        if epoch != self._epoch:
            num_rows, num_turns = self.num_rows, 1
            if epoch < self._late_epoch:
                num_rows, num_turns = self.num_rows - self._num_late, self._num_turns
            order_N = permute(num_rows, self._seed, self._purpose, epoch)
            self._epoch, self._order_N = epoch, order_N.repeat(num_turns)
        return self._order_N

    @property
    def _num_turns(self) -> int:
        """How often the early rows take part in an epoch without the late ones; never twice in one batch."""
        num_early = self.num_rows - self._num_late
        wanted = max(-(-self.num_rows // (2 * num_early)), -(-self.num_batches // num_early))
        return min(wanted, self.num_batches)

    @property
    def smallest_batch(self) -> int:
        """Rows of the smallest batch of all epochs."""
        num_rows = self.num_rows
        if self._late_epoch:
            num_rows = min(num_rows, (self.num_rows - self._num_late) * self._num_turns)
        return num_rows // self.num_batches


@dataclass(frozen=True)
class LateRows:
    """Rows of the base examples that are trained on from an epoch (0-based) on only.

    Example:
        >>> LateRows(torch.tensor([0]), epoch=2).order(3)
        tensor([1, 2, 0])
    """

    rows: Tensor
    epoch: int

    def order(self, num_examples: int) -> Tensor:
        """Return all rows, the late ones last."""
        is_late = torch.zeros(num_examples, dtype=torch.bool)
        is_late[self.rows] = True
        return torch.cat([torch.nonzero(~is_late).flatten(), torch.nonzero(is_late).flatten()])


class AbstractMetaPlan(ABC):
    """Which rows make which meta batch."""

    @abstractmethod
    def rows_at(self, step: int, base_rows: Tensor) -> Tensor:
        """Return the rows of meta batch ``step`` (0-based) that judges the base batch ``base_rows``."""


class TrustedRowsPlan(AbstractMetaPlan):
    """Meta batches of a meta set, drawn independently of the base batches.

    Example:
        >>> plan = TrustedRowsPlan(4, 2, seed=0)
        >>> len(plan.rows_at(0, torch.tensor([0, 1])))
        2
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self._plan = BatchPlan(num_rows, batch_size, seed, "meta-batches")

    def rows_at(self, step: int, base_rows: Tensor) -> Tensor:  # noqa: ARG002 - the contract's signature
        """Return rows of the meta set."""
        return self._plan.rows_at(step)


class OtherRowsPlan(AbstractMetaPlan):
    """Meta batches out of the training rows themselves, never holding a row of the base batch they judge.

    Args:
        num_rows: training rows N.
        batch_size: rows of a meta batch, at most N minus the largest base batch.
        base_batch_size: the largest base batch.
        seed: seed of the plan.

    Raises:
        OptionsError: fewer rows than a base batch and one more.

    Example:
        >>> plan = OtherRowsPlan(6, 2, base_batch_size=3, seed=0)
        >>> base = torch.tensor([0, 1, 2])
        >>> set(plan.rows_at(0, base).tolist()) <= {3, 4, 5}
        True
    """

    def __init__(self, num_rows: int, batch_size: int, base_batch_size: int, seed: int) -> None:
        if base_batch_size >= num_rows:
            raise OptionsError(
                f"batch_size: {base_batch_size} leaves no other row of {num_rows} for the meta batch; "
                f"wanted at most {num_rows - 1} where there is no meta set"
            )
        self.batch_size = min(batch_size, num_rows - base_batch_size)
        self._window = min(num_rows, self.batch_size + base_batch_size)
        self._plan = BatchPlan(num_rows, self.batch_size, seed, "meta-batches")

    def rows_at(self, step: int, base_rows: Tensor) -> Tensor:
        """Return the rows of meta batch ``step``, none of them in ``base_rows``."""
        epoch, index = divmod(step, self._plan.num_batches)
        order_N = self._plan.order_of(epoch)
        start = index * self.batch_size
        window = torch.arange(start, start + self._window) % len(order_N)
        rows = order_N[window]
        return rows[~torch.isin(rows, base_rows)][: self.batch_size]
