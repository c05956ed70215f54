"""Gradient clipping by the global norm, and its derivative."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sama_core.tensors import Vector

_MARGIN = 1e-6


@dataclass(frozen=True)
class Clipping:
    """How a gradient was clipped: g' = g min(1, limit / (n + 1e-6)), n = ||g||, as ``clip_grad_norm_`` does it.

    Attributes:
        limit: largest norm let through, above 0.
        norm: scalar, the norm before clipping.
    """

    limit: float
    norm: Tensor

    @torch.no_grad()
    def pull_back(self, clipped: Sequence[Tensor], vector: Vector) -> Vector:
        """Return dg'/dg times ``vector``, in its memory; the derivative is symmetric.

        With s = limit / (n + 1e-6) < 1 it is s I - g' g'^T / (limit n), else the identity.

        Args:
            clipped: g', the gradient after clipping.
            vector: aligned with it; consumed.

        Example:
            >>> gradient = torch.tensor([3.0, 4.0])
            >>> clipping = Clipping(limit=1.0, norm=gradient.norm())
            >>> clipping.pull_back([gradient / 5], [torch.tensor([0.6, 0.8])])[0].abs().max() < 1e-6
            tensor(True)
        """
        factor = find_factor(self.norm, self.limit)
        products = [torch.dot(g.reshape(-1), v.reshape(-1)) for g, v in zip(clipped, vector, strict=True)]
        along = torch.stack(products).sum() / (self.limit * self.norm.clamp_min(torch.finfo(self.norm.dtype).tiny))
        along = torch.where(factor < 1.0, along, torch.zeros_like(along))
        torch._foreach_mul_(vector, factor)
        torch._foreach_addcmul_(vector, list(clipped), [along] * len(vector), value=-1.0)
        return vector


def find_factor(norm: Tensor, limit: float) -> Tensor:
    """Return the factor, 1 at most, by which clipping multiplies a gradient of this norm.

    Example:
        >>> find_factor(torch.tensor(4.0), 1.0), find_factor(torch.tensor(0.5), 1.0)
        (tensor(0.2500), tensor(1.))
    """
    return (limit / (norm + _MARGIN)).clamp(max=1.0)


def clip_vector(gradients: Sequence[Tensor], limit: float) -> Vector:
    """Return gradients clipped by their global norm, as a differentiable function of them.

    Example:
        >>> clip_vector([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
        [tensor([0.6000]), tensor([0.8000])]
    """
    norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
    factor = find_factor(torch.linalg.vector_norm(norms), limit)
    return [g * factor for g in gradients]
