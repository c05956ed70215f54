"""The bilevel problem of data curation: a weighted base loss and a meta loss on trusted examples.

Shape suffixes: B examples of a batch, K loss terms of an example.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from sama_core.batch import Batch
from sama_core.errors import NetworkError
from sama_core.evidence import Evidence
from sama_core.exchange import AbstractExchange, Alone
from sama_core.learned import AbstractLearned
from sama_core.losses import LossFunction, mean_cross_entropy
from sama_core.precision import Precision
from sama_core.randomness import seed_device


class BilevelProblem:
    """The two levels: L_base = mean_i sum_k c_ik(lambda; e_i) l_ik(theta), and L_meta(theta) on trusted examples.

    Pure where it matters: ``evaluate`` and ``evaluate_meta`` take the parameters and buffers to use and edit nothing
    but the buffers handed to them.

    Args:
        network: base network, theta; called with the inputs of a batch.
        learned: what the meta level learns, lambda; gives the coefficients c, and says which losses l they multiply.
        device: where both live.
        meta_loss: of the network's outputs on a meta batch; the mean cross-entropy by default.
        precision: number format of the forward passes.
        exchange: the processes that share the batches.

    Attributes:
        params: the trainable parameters by name.
        names: their names by ``id``.

    Raises:
        NetworkError: the network has no trainable parameter.
    """

    def __init__(
        self,
        network: nn.Module,
        learned: AbstractLearned,
        device: torch.device,
        *,
        meta_loss: LossFunction = mean_cross_entropy,
        precision: Precision | None = None,
        exchange: AbstractExchange | None = None,
    ) -> None:
        self.network, self.learned, self.device, self.meta_loss = network, learned, device, meta_loss
        self.precision = precision or Precision("float32", device)
        self.exchange = exchange or Alone()
        self.params = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names = {id(p): name for name, p in self.params.items()}
        self._modules = list(network.modules())
        self._learned_dtype = next(learned.parameters()).dtype
        if not self.params:
            raise NetworkError("network: no trainable parameter; wanted at least one that requires a gradient")

    def call(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Batch) -> Any:
        """Return the network's outputs under the given parameters and buffers, with the batch's own seed."""
        seed_device(batch.seed, self.device)
        with self.precision.autocast():
            if params is self.params and not buffers:
                return self.network(batch.inputs)
            return functional_call(self.network, {**params, **buffers}, (batch.inputs,))

    def evaluate(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss terms of each example, (B,) or (B, K), under the given parameters and buffers."""
        return self.learned.losses(self.call(params, buffers, batch), batch)

    def evaluate_meta(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the meta loss, a scalar: without dropout, and with the batch's own statistics in BatchNorm."""
        with judging_mode(self._modules):
            outputs = self.call(params, buffers, batch)
        return self.meta_loss(outputs, batch)

    def weigh(self, evidence: Evidence) -> Tensor:
        """Return the coefficients of the loss terms, (B,) or (B, K)."""
        dtype = self._learned_dtype
        constants = Evidence(
            evidence.rows,
            evidence.labels,
            evidence.features.detach().to(dtype),
            evidence.predictions.detach().to(dtype),
        )
        coefficients: Tensor = self.learned(constants)
        return coefficients


@contextmanager
def judging_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put the modules of a training network into the mode in which the meta loss judges it, and back at the end.

    Everything random is off, as when the network will be used, but BatchNorm keeps to the statistics of the batch: its
    running averages lag behind the weights early in training.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> with judging_mode(list(network.modules())):
        ...     print([part.training for part in network])
        [True, False]
        >>> [part.training for part in network]
        [True, True]
    """
    changed = [part for part in modules if part.training and not isinstance(part, _BatchNorm)]
    for part in changed:
        part.training = False
    try:
        yield
    finally:
        for part in changed:
            part.training = True
