"""Adaptation of Adamax."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sama_core.adaptation.diagonal import AbstractDiagonalAdaptation
from sama_core.adaptation.portion import Portion
from sama_core.adaptation.scalars import Scalar, read_scalar, stack_scalars
from sama_core.tensors import Vector

_ROUNDING = 8.0


class AdamaxAdaptation(AbstractDiagonalAdaptation):
    """With n = max(b2 n, |g| + eps) and m after the step t, c1 = 1 - b1^t:

        D = lr / (c1 n) * [ (1 - b1) - m sign(g) / n where |g| + eps was the larger ]

    Where that one was the larger with g = 0, no gradient has arrived for long, and D is put to 0.
    """

    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Return the mean and the norm."""
        return ("exp_avg", "exp_inf")

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:
        """Return ``epsilon``, ``scale`` = lr / c1, and ``straight`` = 1 - b1."""
        rate, beta1 = (read_scalar(value) for value in (settings["lr"], settings["betas"][0]))
        steps = stack_scalars(states, "step", rate, beta1)
        return {"epsilon": float(settings["eps"]), "scale": rate / (1.0 - beta1**steps), "straight": 1.0 - beta1}

    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""
        compute, smallest = portion.scratch.compute, torch.finfo(portion.vector[0].dtype).tiny
        norms = compute("clamp_min", portion.states["exp_inf"], [smallest] * len(portion.vector))
        gate = self._find_gate(portion, norms)
        signs = compute("sign", portion.gradients)
        active = compute("mul", signs, signs)
        torch._foreach_sub_(active, 1.0)
        torch._foreach_mul_(active, gate)
        torch._foreach_add_(active, 1.0)
        torch._foreach_mul_(portion.vector, active)

        torch._foreach_mul_(signs, gate)
        torch._foreach_mul_(signs, portion.states["exp_avg"])
        torch._foreach_div_(signs, norms)
        torch._foreach_neg_(signs)
        torch._foreach_add_(signs, portion.constants["straight"])
        torch._foreach_div_(signs, norms)
        torch._foreach_mul_(signs, portion.constants["scale"])
        torch._foreach_mul_(portion.vector, signs)

    def _find_gate(self, portion: Portion, norms: Vector) -> Vector:
        """Return 1 where the norm is |g| + eps up to rounding, else 0."""
        gate = portion.scratch.compute("abs", portion.gradients)
        torch._foreach_add_(gate, portion.constants["epsilon"])
        torch._foreach_sub_(gate, norms, alpha=1.0 - _ROUNDING * torch.finfo(norms[0].dtype).eps)
        torch._foreach_sign_(gate)
        torch._foreach_clamp_min_(gate, 0.0)
        return gate

    def momentum(self, settings: Mapping[str, Any]) -> float:
        """Return beta1."""
        return float(settings["betas"][0])
