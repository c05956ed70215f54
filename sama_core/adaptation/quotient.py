"""The derivative that most adaptive optimizers share."""

import torch
from torch import Tensor

from sama_core.adaptation.portion import Portion
from sama_core.adaptation.scalars import Scalars
from sama_core.tensors import Vector


def scale_by_quotient(portion: Portion, root: Vector, product: Vector) -> None:
    """Multiply the portion's vector by du/dg of an update u = s N / (R + e), where dN/dg = a and dR/dg = b h / R:

        D = s / (R + e) * [ a - b N h / (R (R + e)) ]

    The portion's constants give ``epsilon`` = e, ``straight`` = s a and ``bent`` = -s b. Where R = 0 no gradient has
    arrived yet, the loss does not depend on the element, and D is put to 0 (its limit, s a / e, is a huge number that
    would only drown the others in every norm).

    Args:
        portion: gives vector and constants; the vector is edited.
        root: R, 0 or more; consumed.
        product: N h; consumed.

    Example:
        >>> constants = {"epsilon": [1.0], "straight": [1.0], "bent": [-1.0]}
        >>> portion = Portion([torch.ones(1)], [torch.ones(1)], {}, constants)
        >>> scale_by_quotient(portion, [torch.ones(1)], [torch.ones(1)])
        >>> portion.vector
        [tensor([0.2500])]
    """
    shifted = list(torch._foreach_add(root, portion.constants["epsilon"]))
    torch._foreach_mul_(portion.vector, root)
    _multiply_above_floor(root, shifted)
    torch._foreach_div_(portion.vector, root)
    _add_ratio(product, root, portion.constants["straight"], portion.constants["bent"])
    torch._foreach_mul_(portion.vector, product)


def _multiply_above_floor(left: Vector, right: Vector) -> None:
    """Put left * right plus the smallest normal number into ``left``: it may then be divided by."""
    if left[0].device.type == "cpu":
        floor = _fill(left[0], torch.finfo(left[0].dtype).tiny)
        for one, other in zip(left, right, strict=True):
            torch.addcmul(floor, one, other, out=one)
    else:
        torch._foreach_mul_(left, right)
        torch._foreach_add_(left, torch.finfo(left[0].dtype).tiny)


def _add_ratio(top: Vector, bottom: Vector, base: Scalars, factor: Scalars) -> None:
    """Put base + factor * top / bottom into ``top``."""
    if isinstance(factor[0], float) and top[0].device.type == "cpu":
        for above, below, start, multiple in zip(top, bottom, base, factor, strict=True):
            torch.addcdiv(_fill(above, start), above, below, value=multiple, out=above)
    else:
        torch._foreach_div_(top, bottom)
        torch._foreach_mul_(top, factor)
        torch._foreach_add_(top, base)


def _fill(like: Tensor, number: float) -> Tensor:
    return torch.tensor(number, dtype=like.dtype)
