"""How the processes of one solve share their work: each takes its part of every batch, and sums what it found.

Legend: B examples of a batch, B_r of them this process's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from sama_core.errors import ExchangeError, OptionsError
from sama_core.tensors import Vector


class AbstractExchange(ABC):
    """Talks to the other processes of a solve. After every call all of them hold the same numbers, bit by bit.

    Every process makes the same calls in the same order. A batch has at least one example for each of them.

    Attributes:
        rank: this process, 0..size-1.
        size: number of processes.
        device: where tensors can be sent from.
    """

    rank: int
    size: int
    device: torch.device

    def shard(self, joint: Tensor) -> Tensor:
        """Return this process's part (B_r, ...) of (B, ...), in order; the parts differ in length by one at most."""
        return joint if self.size == 1 else joint.tensor_split(self.size)[self.rank]

    def place(self, network: nn.Module) -> nn.Module:
        """Return a network as this process is to hold it; it may be edited."""
        return network

    def check_share(self, name: str, num_examples: int) -> None:
        """Refuse batches that leave a process without an example.

        Raises:
            OptionsError: ``num_examples`` is below ``size``.
        """
        if num_examples < self.size:
            wanted = f"at least {self.size}, one for each process"
            raise OptionsError(f"{name}: the smallest batch has {num_examples} examples; wanted {wanted}")

    def check_agreement(self, what: str, digest: int) -> None:
        """Refuse processes that work on different things.

        Args:
            what: named in the message.
            digest: of it, below 2**63.

        Raises:
            ExchangeError: it differs between the processes.
        """
        (seen,) = self.gather([torch.tensor([digest], device=self.device)], self.size)
        if bool((seen != seen[0]).any()):
            raise ExchangeError(f"exchange: the {what} differ between the {self.size} processes; wanted the same")

    @abstractmethod
    def gather(self, parts: Sequence[Tensor], num_joint: int) -> list[Tensor]:
        """Return the parts of all processes, (B_r, ...) each, joined in the order of the ranks: (B, ...).

        Args:
            parts: what ``shard`` would give this process, by whatever way it was computed.
            num_joint: B.
        """

    @abstractmethod
    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of rank 0, in place."""

    @abstractmethod
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place."""

    @abstractmethod
    def add_up_gradients(self, params: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Return the context of a backward pass whose ``.grad`` become sums over the processes while it runs.

        Gradients that earlier passes have left there are part of the sums. A parameter without a gradient on every
        process stays without one.
        """

    @abstractmethod
    def differentiate(
        self,
        outputs: Sequence[Tensor],
        params: Sequence[Tensor],
        *,
        outgoing: Sequence[Tensor] | None = None,
        along: Sequence[Tensor] = (),
    ) -> Vector:
        """Return the gradient of the outputs, summed over the processes while the backward pass runs.

        Args:
            outputs: what to differentiate; scalars where ``outgoing`` is None.
            params: with respect to these; 0 where nothing depends on one.
            outgoing: gradients with respect to the outputs.
            along: further tensors to be replaced by their sums over the processes.
        """


class Alone(AbstractExchange):
    """A single process: there is nobody to talk to.

    Example:
        >>> Alone().shard(torch.arange(3))
        tensor([0, 1, 2])
    """

    rank, size, device = 0, 1, torch.device("cpu")

    def gather(self, parts: Sequence[Tensor], num_joint: int) -> list[Tensor]:  # noqa: ARG002
        """Return the parts themselves."""
        return list(parts)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing."""

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing."""

    def add_up_gradients(self, params: Sequence[Tensor]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Do nothing around the backward pass."""
        return nullcontext()

    def differentiate(
        self,
        outputs: Sequence[Tensor],
        params: Sequence[Tensor],
        *,
        outgoing: Sequence[Tensor] | None = None,
        along: Sequence[Tensor] = (),  # noqa: ARG002
    ) -> Vector:
        """Return the gradient of the outputs."""
        return list(torch.autograd.grad(outputs, params, grad_outputs=outgoing, materialize_grads=True))
