"""Numbers of an optimizer that a formula uses, read without making the host wait for the device."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = float | Tensor
"""A number, or a 0-dim tensor where only the device knows it."""

Scalars: TypeAlias = Any
"""One number for each tensor of a list: ``list[float]``, or a list of 0-dim tensors; torch's stubs know no union."""


def read_scalar(value: Scalar) -> Scalar:
    """Return a setting as a number where the host holds it, as it is otherwise.

    Example:
        >>> read_scalar(torch.tensor(0.5)), read_scalar(2)
        (0.5, 2.0)
    """
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return value
    return float(value)


def stack_scalars(states: Sequence[Mapping[str, Any]], name: str, *beside: Scalar) -> Tensor:
    """Return one number of each state as float64 (n,), where the host or the device holds them.

    Args:
        states: of n parameters.
        name: of the 0-dim tensor, such as ``step``.
        beside: what it will be combined with; a tensor among it on a device draws the result there.

    Example:
        >>> stack_scalars([{"step": torch.tensor(3.0)}, {"step": torch.tensor(4.0)}], "step")
        tensor([3., 4.], dtype=torch.float64)
    """
    stacked = torch.stack([state[name] for state in states]).double()
    for other in beside:
        if isinstance(other, Tensor):
            stacked = stacked.to(other.device, non_blocking=True)
    return stacked


def spread_scalars(values: Scalar, count: int) -> Scalars:
    """Return one number for each of ``count`` parameters.

    Args:
        values: a number, a 0-dim tensor, or (count,).
        count: how many parameters there are.

    Example:
        >>> spread_scalars(torch.tensor([1.0, 2.0]), 2), spread_scalars(3.0, 2)
        ([1.0, 2.0], [3.0, 3.0])
    """
    if not isinstance(values, Tensor):
        return [values] * count
    spread = values.expand(count)
    return spread.tolist() if spread.device.type == "cpu" else list(spread.unbind())
