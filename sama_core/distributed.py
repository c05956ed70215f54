"""A solve shared by several processes: ``torch.distributed`` with gloo on the CPU and NCCL on GPUs.

Why not ``DistributedDataParallel``: it is a wrapper around a module and its ``forward``, and averages what one
``backward`` leaves. Here the same network is also called with parameters of our own (the routes) and differentiated by
``autograd.grad`` (the meta loss), gradients are sums, because each loss carries its share of the joint batch already,
and BatchNorm's buffers must not be overwritten before a pass that is to be repeated. What is taken over from it is
the idea: gradients fill flat buckets in the order in which backward makes them, and a full bucket is on its way while
the rest is computed.

Legend: B examples of a batch, B_r of them this process's own, R processes.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sama_core.buckets import BucketFlight, plan_buckets, watch_others
from sama_core.errors import ExchangeError
from sama_core.exchange import AbstractExchange
from sama_core.tensors import Vector

_TIMEOUT_SECONDS = 600.0


class DistributedExchange(AbstractExchange):
    """The exchange of the processes of a ``torch.distributed`` group, one device each.

    What travels, for P parameters of the network and q of what is learned:

    - a base step: the features of the batch, before its backward pass; P gradients, during it; the loss and
      BatchNorm's running statistics, after it;
    - a meta step: P numbers of the meta gradient, during its backward pass; q numbers of the hypergradient, during the
      last backward pass.

    The P numbers of a meta step are the price of exactness. The hypergradient is a product of the meta gradient and
    of the base batch's derivatives: summing only the q products that each process makes of its own two parts would
    leave out every product of one process's part with another's.

    Processes that differ in hardware or number of threads may round differently and so drift apart; give them the same.

    Args:
        timeout_seconds: how long to wait for another process before giving up on it.

    Attributes:
        device: of this process: ``cuda:LOCAL_RANK`` with NCCL, else the CPU.

    Raises:
        ExchangeError: the process group is not set up; ``from_environment`` does that.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:  # one process; torchrun starts more: from_environment
        ...     with DistributedExchange.from_file(Path(folder, "store"), 0, 1, torch.device("cpu")) as exchange:
        ...         exchange.gather([torch.tensor([1, 2])], num_joint=2)
        [tensor([1, 2])]

    References:
        Li et al., PyTorch Distributed, VLDB 2020, section 3.2 (buckets).
    """

    def __init__(
        self, device: torch.device, timeout_seconds: float = _TIMEOUT_SECONDS, *, owns_group: bool = False
    ) -> None:
        if not dist.is_initialized():
            raise ExchangeError(
                "exchange: torch.distributed is not set up; wanted DistributedExchange.from_environment()"
            )
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device
        self.timeout_seconds, self._owns_group = timeout_seconds, owns_group

    @classmethod
    def from_environment(cls, timeout_seconds: float = _TIMEOUT_SECONDS) -> Self:
        """Join the other processes as the environment variables of ``torchrun`` say.

        Takes the GPU of ``LOCAL_RANK`` where there is one, else the CPU. A process group that is set up already is
        used as it is.

        Raises:
            ExchangeError: a variable is missing, or not all processes came in time.
        """
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing and not dist.is_initialized():
            raise ExchangeError(f"environment: {', '.join(missing)} missing; wanted to be started by torchrun")
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return cls._join(device, timeout_seconds, init_method="env://")

    @classmethod
    def from_file(
        cls, path: Path, rank: int, size: int, device: torch.device, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> Self:
        """Join the other processes of this machine.

        Args:
            path: a file in a folder that only these processes can write to; it must not exist before the first of them
                comes, and is used once.
            rank: this process, 0..size-1.
            size: number of processes.
            device: of this process.
            timeout_seconds: see the class.

        Raises:
            ExchangeError: not all processes came in time.
        """
        return cls._join(device, timeout_seconds, init_method=f"file://{path}", rank=rank, world_size=size)

    @classmethod
    def _join(cls, device: torch.device, timeout_seconds: float, **where: object) -> Self:
        owns_group = not dist.is_initialized()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if owns_group:
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            with watch_others(timeout_seconds):
                dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds), **where)  # type: ignore[arg-type]
        return cls(device, timeout_seconds, owns_group=owns_group)

    def close(self) -> None:
        """Leave the group, where this object has set it up."""
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @torch.no_grad()
    def gather(self, parts: Sequence[Tensor], num_joint: int) -> list[Tensor]:
        """Return the joined parts; all travel together, as bytes, in one collective."""
        longest, num_long = -(-num_joint // self.size), num_joint % self.size or self.size
        bytes_BW = [_to_bytes(part) for part in parts]
        widths = [columns.shape[1] for columns in bytes_BW]
        own = bytes_BW[0].new_zeros(longest, sum(widths))
        torch.cat(bytes_BW, dim=1, out=own[: len(parts[0])])
        all_RBW = own.new_empty(self.size, *own.shape)
        with watch_others(self.timeout_seconds):
            dist.all_gather_single(all_RBW.flatten(0, 1), own)
        joined_BW = all_RBW.flatten(0, 1)
        if num_long < self.size:
            full, short = all_RBW[:num_long], all_RBW[num_long:, : longest - 1]
            joined_BW = torch.cat((full.flatten(0, 1), short.flatten(0, 1)))
        columns = torch.split(joined_BW, widths, dim=1)
        return [
            column.contiguous().view(part.dtype).reshape(num_joint, *part.shape[1:])
            for column, part in zip(columns, parts, strict=True)
        ]

    @torch.no_grad()
    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of rank 0, in place."""
        for members in (list(plan.values()) for plan in plan_buckets(tensors)):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in members])
            with watch_others(self.timeout_seconds):
                dist.broadcast(flat, 0)
            for tensor, part in zip(members, torch.split(flat, [tensor.numel() for tensor in members]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place."""
        flight = self._begin(tensors)
        for index, tensor in enumerate(tensors):
            flight.offer(index, tensor.detach())
        flight.land()
        for index, tensor in enumerate(tensors):
            tensor.detach().copy_(flight.view(index))

    def add_up_gradients(self, params: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Sum the gradients bucket by bucket while the backward pass inside the context runs."""
        return self._add_up_during(params)

    @contextmanager
    def _add_up_during(self, params: Sequence[Tensor]) -> Iterator[None]:
        flight = self._begin(params)

        def hook(index: int, param: Tensor) -> None:
            assert param.grad is not None
            param.grad = flight.offer(index, param.grad)

        with _hooks(
            param.register_post_accumulate_grad_hook(partial(hook, index))  # type: ignore[no-untyped-call]
            for index, param in enumerate(params)
        ):
            yield
        for index, param in enumerate(params):
            if not flight.has(index) and param.grad is not None:
                hook(index, param)
        flight.land()
        for index, param in enumerate(params):
            if param.grad is None and flight.was_brought(index):
                param.grad = flight.view(index)

    def differentiate(
        self,
        outputs: Sequence[Tensor],
        params: Sequence[Tensor],
        *,
        outgoing: Sequence[Tensor] | None = None,
        along: Sequence[Tensor] = (),
    ) -> Vector:
        """Sum the gradient bucket by bucket while the backward pass runs."""
        flight = self._begin([*along, *params])
        for index, tensor in enumerate(along):
            flight.offer(index, tensor)
        first = len(along)
        with _hooks(
            param.register_hook(partial(flight.offer, first + index))  # type: ignore[no-untyped-call]
            for index, param in enumerate(params)
        ):
            torch.autograd.grad(outputs, params, grad_outputs=outgoing, allow_unused=True)
        flight.land()
        for index, tensor in enumerate(along):
            tensor.copy_(flight.view(index))
        return [flight.view(first + index) for index in range(len(params))]

    def _begin(self, tensors: Sequence[Tensor]) -> BucketFlight:
        return BucketFlight(tensors, self.timeout_seconds)


def _to_bytes(part: Tensor) -> Tensor:
    """Return the bytes of each row (B, W). A copy: one element keeps its stride, contiguous or not."""
    rows_BW = part.detach().reshape(len(part), -1).clone(memory_format=torch.contiguous_format)
    return rows_BW.view(torch.uint8)


@contextmanager
def _hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks for as long as the context lasts."""
    held = list(handles)
    try:
        yield
    finally:
        for handle in held:
            handle.remove()
