"""The bilevel problem of data curation: a weighted base loss and a meta loss on trusted examples.

Shape suffixes: B examples of a batch, C classes, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sama_core.errors import NetworkError
from sama_core.learned import AbstractLearned
from sama_core.randomness import seed_device
from sama_core.tensors import move_inputs
from sama_core.types import AbstractExamples, Inputs


@dataclass(frozen=True)
class Batch:
    """A batch on the device, with the seed of every random number its forward passes draw.

    Attributes:
        rows: int64 (B,), row numbers in the data set.
        inputs: what the network takes.
        labels: int64 (B,).
        seed: put before each forward pass of this batch, so that all of them share one dropout mask.
    """

    rows: Tensor
    inputs: Inputs
    labels: Tensor
    seed: int


def fetch_batch(examples: AbstractExamples, rows: Tensor, seed: int, device: torch.device) -> Batch:
    """Return the batch of these rows on ``device``.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([1, 0]))
        >>> fetch_batch(examples, torch.tensor([1]), 0, torch.device("cpu")).labels
        tensor([0])
    """
    inputs = move_inputs(examples.fetch(rows), device)
    labels_B = examples.labels[rows].to(device, non_blocking=True)
    return Batch(rows.to(device, non_blocking=True), inputs, labels_B, seed)


def compute_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example.

    Shapes: logits (B, C), labels (B,) -> (B,).

    Raises:
        NetworkError: the logits are not of shape (B, C) with C above every label.

    Example:
        >>> compute_losses(torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor([0.6931, 0.6931])
    """
    if logits.dim() != 2 or logits.shape[0] != len(labels):
        raise NetworkError(
            f"network: returned shape {tuple(logits.shape)} for {len(labels)} examples; "
            f"wanted ({len(labels)}, number of classes)"
        )
    return cross_entropy(logits, labels, reduction="none")


class BilevelProblem:
    """The two levels: L_base = mean_i w_i(lambda; f_i) * l_i(theta), and L_meta = mean_j l_j(theta).

    Pure where it matters: ``evaluate`` takes the parameters and buffers to use and edits nothing but the buffers
    handed to it.

    Args:
        network: base network, theta; called with the inputs of a batch, gives logits (B, C).
        learned: what the meta level learns, lambda; gives the weight of each example.
        device: where both live.

    Attributes:
        params: the trainable parameters by name.
        names: their names by ``id``.

    Raises:
        NetworkError: the network has no trainable parameter.
    """

    def __init__(self, network: nn.Module, learned: AbstractLearned, device: torch.device) -> None:
        self.network, self.learned, self.device = network, learned, device
        self.params = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._learned_dtype = next(learned.parameters()).dtype
        self.names = {id(p): name for name, p in self.params.items()}
        if not self.params:
            raise NetworkError("network: no trainable parameter; wanted at least one that requires a gradient")

    def evaluate(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each example (B,) under the given parameters and buffers, with the batch's own seed."""
        seed_device(batch.seed, self.device)
        logits_BC = functional_call(self.network, {**params, **buffers}, (batch.inputs,))
        return compute_losses(logits_BC, batch.labels)

    def weigh(self, rows: Tensor, features: Tensor) -> Tensor:
        """Return the weight of each of ``rows`` (B,); their features (B, F) are constants."""
        weights_B: Tensor = self.learned(rows, features.detach().to(self._learned_dtype))
        return weights_B
