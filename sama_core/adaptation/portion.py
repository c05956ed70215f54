"""Portions: the element-wise formulas run over a few tensors, or a few pieces of them, at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sama_core.adaptation.scalars import Scalars
from sama_core.adaptation.scratch import Scratch
from sama_core.tensors import Vector

_ELEMENTS_PER_THREAD = 1 << 18
_ELEMENTS_ON_CPU = 1 << 20
_ELEMENTS_ON_DEVICE = 1 << 25


@dataclass(frozen=True)
class Portion:
    """Some of the parameters of a group, or pieces of them; every list is aligned with ``vector``.

    Attributes:
        vector: to be multiplied by D, in place.
        gradients: as the optimizer saw them, coupled weight decay included; not edited.
        states: the optimizer's state tensors after the step, by name; not edited.
        constants: numbers of the formula, by name.
        scratch: where the formula computes.
    """

    vector: Vector
    gradients: Vector
    states: Mapping[str, Vector]
    constants: Mapping[str, Scalars]
    scratch: Scratch


def split_columns(columns: Sequence[Vector]) -> Iterator[tuple[list[int], list[Vector]]]:
    """Yield aligned lists of tensors a portion at a time, as views.

    On the CPU large tensors are cut and small ones put together, so that what a formula puts down between two of its
    passes is still in the cache at the next; elsewhere a portion bounds the scratch memory alone.

    Args:
        columns: lists of n tensors; those at the same place of each list have one shape.

    Yields:
        Of each piece the place 0..n-1 that it was cut from, and the pieces of each column.

    Example:
        >>> next(split_columns([[torch.zeros(2), torch.zeros(1)], [torch.ones(2), torch.ones(1)]]))
        ([0, 1], [[tensor([0., 0.]), tensor([0.])], [tensor([1., 1.]), tensor([1.])]])
    """
    owners: list[int] = []
    pieces: list[Vector] = [[] for _ in columns]
    size, kind = 0, None
    for owner, row in _cut_rows(columns):
        lead = row[0]
        if owners and ((lead.device, lead.dtype) != kind or size + lead.numel() > limit_elements(lead)):
            yield owners, pieces
            owners, pieces, size = [], [[] for _ in columns], 0
        owners.append(owner)
        for column, piece in zip(pieces, row, strict=True):
            column.append(piece)
        size, kind = size + lead.numel(), (lead.device, lead.dtype)
    if owners:
        yield owners, pieces


def _cut_rows(columns: Sequence[Vector]) -> Iterator[tuple[int, Sequence[Tensor]]]:
    for owner, row in enumerate(zip(*columns, strict=True)):
        lead, limit = row[0], limit_elements(row[0])
        if lead.device.type != "cpu" or lead.numel() <= limit:
            yield owner, row
            continue
        flat = [tensor.view(-1) for tensor in row] if all(tensor.is_contiguous() for tensor in row) else row
        num_slices = max(1, limit * len(flat[0]) // lead.numel())
        for cut in zip(*(tensor.split(num_slices) for tensor in flat), strict=True):
            yield owner, cut


def limit_elements(tensor: Tensor) -> int:
    """Return how many elements a portion of such tensors has at most, unless a single one has more.

    Example:
        >>> limit_elements(torch.zeros(1)) == 2 * limit_elements(torch.zeros(1, dtype=torch.float64))
        True
    """
    if tensor.device.type != "cpu":
        return _ELEMENTS_ON_DEVICE
    elements = min(_ELEMENTS_PER_THREAD * torch.get_num_threads(), _ELEMENTS_ON_CPU)
    return max(1, elements * 4 // tensor.element_size())


def own_memory(vector: Vector) -> Vector:
    """Return the vector with each tensor in memory of its own: autograd hands out expanded and shared ones too.

    Example:
        >>> one = torch.ones(2)
        >>> first, second = own_memory([one, one])
        >>> first is one, second is one
        (True, False)
    """
    seen: set[int] = set()
    owned = []
    for tensor in vector:
        address = tensor.untyped_storage().data_ptr()
        is_expanded = tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()
        owned.append(tensor.clone(memory_format=torch.contiguous_format) if address in seen or is_expanded else tensor)
        seen.add(address)
    return owned
