"""Processes that share a solve, as threads of one: they meet at a barrier and add up in the order of their ranks."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

from sama_core.exchange import AbstractExchange

Result = TypeVar("Result")


class ThreadExchange(AbstractExchange):
    """One of several threads.

    Args:
        rank: this thread.
        barrier: where all of them meet.
        board: one place a thread, the same list for all.
    """

    def __init__(self, rank: int, barrier: Barrier, board: list[list[Tensor]]) -> None:
        self.rank, self.size, self._barrier, self._board = rank, len(board), barrier, board

    def gather(self, parts: Sequence[Tensor], num_joint: int) -> list[Tensor]:
        """Return the parts joined."""
        return [torch.cat(pieces) for pieces in zip(*self._show(parts), strict=True)]

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Take the tensors of the first thread."""
        for tensor, first in zip(tensors, self._show(tensors)[0], strict=True):
            tensor.copy_(first)

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Take the sums."""
        for tensor, shown in zip(tensors, zip(*self._show(tensors), strict=True), strict=True):
            tensor.copy_(torch.stack(shown).sum(0))

    @contextmanager
    def add_up_gradients(self, params: Sequence[Tensor]) -> Iterator[None]:
        """Add the gradients up after the pass."""
        yield
        self.add_up([p.grad for p in params if p.grad is not None])

    def differentiate(
        self,
        outputs: Sequence[Tensor],
        params: Sequence[Tensor],
        *,
        outgoing: Sequence[Tensor] | None = None,
        along: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """Return the sum of the threads' gradients."""
        found = torch.autograd.grad(outputs, params, grad_outputs=outgoing, materialize_grads=True)
        gradients = [gradient.clone() for gradient in found]
        self.add_up([*gradients, *along])
        return gradients

    def _show(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Put copies on the board, and return those of all threads."""
        self._board[self.rank] = [tensor.detach().clone() for tensor in tensors]
        self._barrier.wait(timeout=60)
        shown = list(self._board)
        self._barrier.wait(timeout=60)
        return shown


def run_together(size: int, work: Callable[[AbstractExchange], Result]) -> list[Result]:
    """Return what each of ``size`` threads came to."""
    barrier, board = Barrier(size), [[] for _ in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(ThreadExchange(rank, barrier, board)), range(size)))
