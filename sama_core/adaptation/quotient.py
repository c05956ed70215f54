"""The derivative that most adaptive optimizers share."""

from functools import cache

import torch
from torch import Tensor

from sama_core.adaptation.portion import Portion
from sama_core.adaptation.scalars import Scalar, Scalars
from sama_core.tensors import Vector

_SMALLEST = float(torch.finfo(torch.float32).tiny)


def describe_quotient(*, epsilon: Scalar, scale: Scalar, bend: Scalar) -> dict[str, Scalar]:
    """Return the constants that ``scale_by_quotient`` wants, for an update u = s N / (R + e).

    Args:
        epsilon: e.
        scale: s a, where dN/dg = a; 0 or more.
        bend: b / a, where dR/dg = b h / R.

    Example:
        >>> describe_quotient(epsilon=0.1, scale=0.5, bend=0.2)
        {'epsilon': 0.1, 'inverse': 2.0, 'bend': -0.2}
    """
    held = scale.clamp_min(_SMALLEST) if isinstance(scale, Tensor) else max(scale, _SMALLEST)
    return {"epsilon": epsilon, "inverse": 1.0 / held, "bend": -bend}


def scale_by_quotient(portion: Portion, root: Vector, product: Vector) -> None:
    """Multiply the portion's vector by du/dg of an update u = s N / (R + e), where dN/dg = a and dR/dg = b h / R:

        D = s a / (R (R + e)) * [ R - (b / a) N h / (R + e) ]

    Where R = 0 no gradient has arrived yet, the loss does not depend on the element, and D is put to 0 (its limit,
    s a / e, is a huge number that would only drown the others in every norm).

    Args:
        portion: gives vector and constants (``describe_quotient``); the vector is edited.
        root: R, 0 or more.
        product: N h; consumed.

    Example:
        >>> from sama_core.adaptation.scratch import Scratch
        >>> constants = {"epsilon": [1.0], "inverse": [1.0], "bend": [-1.0]}
        >>> portion = Portion([torch.ones(1)], [torch.ones(1)], {}, constants, Scratch(1))
        >>> scale_by_quotient(portion, [torch.ones(1)], [torch.ones(1)])
        >>> portion.vector
        [tensor([0.2500])]
    """
    shifted = portion.scratch.compute("add", root, portion.constants["epsilon"])
    _add_ratio(product, root, shifted, portion.constants["bend"])
    torch._foreach_mul_(portion.vector, product)
    _multiply_above_floor(shifted, root, portion.constants["inverse"])
    torch._foreach_div_(portion.vector, shifted)


def _add_ratio(top: Vector, base: Vector, bottom: Vector, factors: Scalars) -> None:
    """Put base + factor * top / bottom into ``top``."""
    if _is_known(top, factors):
        for above, start, below, factor in zip(top, base, bottom, factors, strict=True):
            torch.addcdiv(start, above, below, value=factor, out=above)
    else:
        torch._foreach_div_(top, bottom)
        torch._foreach_mul_(top, factors)
        torch._foreach_add_(top, base)


def _multiply_above_floor(left: Vector, right: Vector, factors: Scalars) -> None:
    """Put factor * left * right plus the smallest normal number into ``left``: it may then be divided by."""
    if _is_known(left, factors):
        floor = _find_floor(left[0].dtype)
        for one, other, factor in zip(left, right, factors, strict=True):
            torch.addcmul(floor, one, other, value=factor, out=one)
    else:
        torch._foreach_mul_(left, right)
        torch._foreach_mul_(left, factors)
        torch._foreach_add_(left, torch.finfo(left[0].dtype).tiny)


@cache
def _find_floor(dtype: torch.dtype) -> Tensor:
    return torch.tensor(torch.finfo(dtype).tiny, dtype=dtype)


def _is_known(vector: Vector, factors: Scalars) -> bool:
    """Return whether the shortest form, a loop on the host with numbers, is open."""
    return vector[0].device.type == "cpu" and isinstance(factors[0], float)
