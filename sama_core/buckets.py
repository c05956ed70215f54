"""Tensors on their way to a sum over processes: packed into flat buckets, each sent as soon as it is full."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from sama_core.errors import ExchangeError

# Small enough that the first is full early in the backward pass, large enough that the rest are not sent in crumbs.
_FIRST_BYTES, _BUCKET_BYTES = 2**20, 25 * 2**20
_ALIGNMENT = 16


class Bucket:
    """A flat buffer for some tensors of one kind, and for each of them the number of processes that brought one.

    Args:
        members: index -> tensor whose shape and strides the buffer's views take.
    """

    def __init__(self, members: dict[int, Tensor]) -> None:
        self.members, self.missing = members, set(members)
        self._offsets: dict[int, int] = {}
        end = 0
        for index, tensor in members.items():
            self._offsets[index] = end
            end += -(-tensor.numel() // _ALIGNMENT) * _ALIGNMENT
        kind = next(iter(members.values()))
        self.flat = torch.zeros(end + len(members), dtype=kind.dtype, device=kind.device)
        self._tail = self.flat[end:]
        self._counts: dict[int, Tensor] = dict(zip(members, self._tail.unbind(), strict=True))

    def view(self, index: int) -> Tensor:
        """Return a member's part of the buffer, with the strides of the tensor it was planned for."""
        tensor = self.members[index]
        if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
            return self.flat.as_strided(tensor.size(), tensor.stride(), self._offsets[index])
        start = self._offsets[index]
        return self.flat[start : start + tensor.numel()].view(tensor.size())

    def put(self, index: int, tensor: Tensor) -> Tensor:
        """Copy a member in; return its view."""
        view = self.view(index)
        view.copy_(tensor)
        self.missing.remove(index)
        return view

    def count(self, index: int) -> Tensor:
        """Return how many processes have brought this member, a scalar; known after the sum."""
        return self._counts[index]

    def seal(self) -> Tensor:
        """Write down what is in it, and return the buffer to be sent."""
        self._tail.fill_(1)
        for index in self.missing:
            self._counts[index].zero_()
        return self.flat


class BucketFlight:
    """One sum of many tensors over all processes, in buckets that leave in the same order everywhere.

    Buckets are planned from the last tensor to the first, about the order in which a backward pass makes gradients.

    Args:
        tensors: what is to be summed, or tensors of the same shapes, in the same order on every process.
        timeout_seconds: named in the message where another process is lost.
    """

    def __init__(self, tensors: Sequence[Tensor], timeout_seconds: float) -> None:
        self._buckets = [Bucket(members) for members in plan_buckets(tensors)]
        self._bucket_of = {index: bucket for bucket in self._buckets for index in bucket.members}
        self._timeout_seconds = timeout_seconds
        self._works: list[dist.Work] = []
        self._brought: set[int] = set()

    @torch.no_grad()
    def offer(self, index: int, tensor: Tensor) -> Tensor:
        """Put a tensor on board and return the view that will hold its sum.

        Raises:
            ExchangeError: it came before, or another process is lost.
        """
        if index in self._brought:
            raise ExchangeError("exchange: a gradient came twice in one backward pass; wanted no reentrant checkpoints")
        self._brought.add(index)
        view = self._bucket_of[index].put(index, tensor)
        while len(self._works) < len(self._buckets) and not self._buckets[len(self._works)].missing:
            self._send_next()
        return view

    def has(self, index: int) -> bool:
        """Tell whether this process has brought that tensor."""
        return index in self._brought

    def was_brought(self, index: int) -> bool:
        """Tell whether any process has brought it; waits for the device. Only after ``land``."""
        return bool(self._bucket_of[index].count(index) > 0)

    def view(self, index: int) -> Tensor:
        """Return the sum; 0 where no process has brought one. Only after ``land``."""
        return self._bucket_of[index].view(index)

    @torch.no_grad()
    def land(self) -> None:
        """Send what is left and return when every sum is there.

        Raises:
            ExchangeError: another process is lost.
        """
        while len(self._works) < len(self._buckets):
            self._send_next()
        with watch_others(self._timeout_seconds):
            for work in self._works:
                work.wait()

    def _send_next(self) -> None:
        with watch_others(self._timeout_seconds):
            work = dist.all_reduce(self._buckets[len(self._works)].seal(), async_op=True)
        assert work is not None
        self._works.append(work)


def plan_buckets(tensors: Sequence[Tensor]) -> list[dict[int, Tensor]]:
    """Return which tensors travel together, by index, the last first; the plan depends on shapes and kinds alone.

    Example:
        >>> [list(members) for members in plan_buckets([torch.ones(2), torch.ones(2**20), torch.ones(3)])]
        [[2, 1], [0]]
    """
    done: list[dict[int, Tensor]] = []
    filling: dict[tuple[torch.dtype, torch.device], dict[int, Tensor]] = {}
    for index in reversed(range(len(tensors))):
        tensor = tensors[index].detach()
        members = filling.setdefault((tensor.dtype, tensor.device), {})
        members[index] = tensor
        limit = _BUCKET_BYTES if done else _FIRST_BYTES
        if sum(member.numel() * member.element_size() for member in members.values()) >= limit:
            done.append(filling.pop((tensor.dtype, tensor.device)))
    return done + list(filling.values())


@contextmanager
def watch_others(timeout_seconds: float) -> Iterator[None]:
    """Say in plain words that another process is lost.

    Raises:
        ExchangeError: in the place of the backend's own error.

    Example:
        >>> with watch_others(5.0):
        ...     raise RuntimeError("Connection closed by peer")
        Traceback (most recent call last):
        ...
        sama_core.errors.ExchangeError: exchange: another process of the solve is gone or silent; wanted an answer \
within 5 seconds
    """
    try:
        yield
    except RuntimeError as error:
        raise ExchangeError(
            "exchange: another process of the solve is gone or silent; "
            f"wanted an answer within {timeout_seconds:g} seconds"
        ) from error
