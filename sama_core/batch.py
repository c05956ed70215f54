"""A batch on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sama_core.exchange import AbstractExchange, Alone
from sama_core.randomness import derive_seed
from sama_core.tensors import move_inputs
from sama_core.types import AbstractExamples, Inputs, map_inputs


@dataclass(frozen=True)
class Batch:
    """A batch on the device, with the seed of every random number its forward passes draw.

    Attributes:
        rows: int64 (B,), row numbers in the data set.
        inputs: what the network takes.
        labels: int64 (B,).
        seed: put before each forward pass of this batch, so that all of them share one dropout mask.
        num_joint: examples of the whole batch that this one is a part of: the losses are averaged over those. None
            where it is the whole.
        num_pass: examples that all processes together put through this pass. None where this process is alone.
    """

    rows: Tensor
    inputs: Inputs
    labels: Tensor
    seed: int
    num_joint: int | None = None
    num_pass: int | None = None

    @property
    def num_together(self) -> int:
        """Examples of this pass, over all processes."""
        return len(self.labels) if self.num_pass is None else self.num_pass

    @property
    def share(self) -> float:
        """This part of the whole, by examples."""
        return 1.0 if self.num_joint is None else len(self.labels) / self.num_joint


def fetch_batch(
    examples: AbstractExamples,
    rows: Tensor,
    seed: int,
    device: torch.device,
    *,
    num_joint: int | None = None,
    channels_last: bool = False,
) -> Batch:
    """Return the batch of these rows on ``device``.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([1, 0]))
        >>> fetch_batch(examples, torch.tensor([1]), 0, torch.device("cpu")).labels
        tensor([0])
    """
    inputs = move_inputs(examples.fetch(rows), device, channels_last=channels_last)
    labels_B = examples.labels[rows].to(device, non_blocking=True)
    return Batch(rows.to(device, non_blocking=True), inputs, labels_B, seed, num_joint, num_joint)


def split_batch(batch: Batch, num_pieces: int, exchange: AbstractExchange | None = None) -> list[Batch]:
    """Return a batch in pieces of nearly equal size, in order, each with a seed of its own.

    Where several processes share the batch it holds this one's part of each joint piece: the pieces of one
    process and of many are the same.

    Example:
        >>> batch = Batch(torch.arange(3), torch.zeros(3, 1), torch.tensor([0, 1, 0]), seed=0)
        >>> [piece.labels.tolist() for piece in split_batch(batch, 2)]
        [[0, 1], [0]]
    """
    num_joint = batch.num_joint or len(batch.labels)
    shares = exchange or Alone()
    pieces, start = [], 0
    for number, joint in enumerate(torch.arange(num_joint).tensor_split(num_pieces)):
        size = len(shares.shard(joint))
        part = slice(start, start + size)
        inputs = map_inputs(batch.inputs, lambda tensor, part=part: tensor[part])  # type: ignore[misc]
        seed = derive_seed(batch.seed, "piece", number)
        pieces.append(Batch(batch.rows[part], inputs, batch.labels[part], seed, num_joint, len(joint)))
        start += size
    return pieces
