"""Memory for what a formula puts down between two of its passes."""

from typing import Any

import torch
from torch import Tensor

from sama_core.tensors import Vector


class Scratch:
    """Computes new tensors, on the CPU in the same memory for every portion: fresh pages cost more than the formulas.

    What ``compute`` returned is overwritten after the next ``restart``.

    Args:
        num_elements: how many a portion usually has at most.

    Example:
        >>> scratch = Scratch(8)
        >>> first = scratch.compute("sqrt", [torch.tensor([4.0])])
        >>> first
        [tensor([2.])]
        >>> scratch.restart()
        >>> _ = scratch.compute("mul", [torch.tensor([3.0])], [torch.tensor([2.0])])
        >>> first
        [tensor([6.])]
    """

    def __init__(self, num_elements: int) -> None:
        self._num_elements = num_elements
        self._slots: list[Tensor] = []
        self._views: list[tuple[list[torch.Size], Vector]] = []
        self._next = 0

    def restart(self) -> None:
        """Free everything for the next portion."""
        self._next = 0

    def compute(self, name: str, first: Vector, *others: Any, **options: Any) -> Vector:
        """Return the results of an element-wise operation.

        Args:
            name: as ``torch`` calls it.
            first: its first argument, for each tensor.
            others: its further arguments, a list for each, aligned.
            options: the same for all tensors.
        """
        if first[0].device.type != "cpu":
            return list(getattr(torch, f"_foreach_{name}")(first, *others, **options))
        operation, results = getattr(torch, name), self._take(first)
        for result, *arguments in zip(results, first, *others, strict=True):
            operation(*arguments, out=result, **options)
        return results

    def _take(self, like: Vector) -> Vector:
        """Return memory shaped as a vector, in the next slot."""
        number, shapes = self._next, [tensor.shape for tensor in like]
        self._next += 1
        if number == len(self._slots):
            self._slots.append(like[0].new_empty(0))
            self._views.append(([], []))
        if self._views[number][0] != shapes or self._slots[number].dtype != like[0].dtype:
            self._views[number] = shapes, self._cut(number, like)
        return self._views[number][1]

    def _cut(self, number: int, like: Vector) -> Vector:
        sizes = [tensor.numel() for tensor in like]
        size, slot = sum(sizes), self._slots[number]
        if slot.numel() < size or slot.dtype != like[0].dtype:
            slot = self._slots[number] = like[0].new_empty(max(size, self._num_elements))
        pieces = torch.split_with_sizes(slot[:size], sizes)
        return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]
