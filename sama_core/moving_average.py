"""A true exponential moving average of a network's parameters."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from sama_core.types import Inputs


class MovingAverage:
    """Exponential moving average of the parameters; buffers are those of the live network.

    After update t (1-based) the average moves by ``1 - min(decay, t / (t + 9))`` towards the live network, so that
    the random start is forgotten at once.

    Args:
        network: the live network; it is copied.
        decay: share of the old average that a late update keeps, in [0, 1).

    Example:
        >>> live = nn.Linear(1, 1, bias=False)
        >>> average = MovingAverage(live, decay=0.9)
        >>> with torch.no_grad():
        ...     _ = live.weight.add_(1.0)
        >>> average.update(live)
        >>> round((live.weight - average.network.weight).item(), 3)
        0.1
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.num_updates = 0
        self._params = [param.detach() for param in self.network.parameters()]
        self._buffers = list(self.network.buffers())

    @torch.no_grad()
    def update(self, live: nn.Module, num_steps: int = 1) -> None:
        """Move the average towards ``live``, at once for the ``num_steps`` base steps since the last update."""
        self.num_updates += 1
        kept = min(self.decay**num_steps, self.num_updates / (self.num_updates + 9))
        torch._foreach_lerp_(self._params, [param.detach() for param in live.parameters()], 1.0 - kept)
        if self._buffers:
            torch._foreach_copy_(self._buffers, list(live.buffers()))

    @torch.no_grad()
    def forward(self, inputs: Inputs) -> Tensor:
        """Return the logits of the averaged network in evaluation mode."""
        logits: Tensor = self.network(inputs)
        return logits
