"""Adaptation of Adam, AdamW and AMSGrad."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sama_core.adaptation.diagonal import AbstractDiagonalAdaptation
from sama_core.adaptation.portion import Portion
from sama_core.adaptation.quotient import describe_quotient, scale_by_quotient
from sama_core.adaptation.scalars import Scalar, read_scalar, stack_scalars


class AdamAdaptation(AbstractDiagonalAdaptation):
    """The exact derivative of Adam's update with respect to the gradient of this step.

    With m, v the moments after the step t, c1 = 1 - b1^t, c2 = 1 - b2^t, R = sqrt(v), e = eps sqrt(c2):

        D = lr sqrt(c2) / (c1 (R + e)) * [ (1 - b1) - (1 - b2) m g / (R (R + e)) ]

    where g is the gradient that Adam saw (coupled weight decay included; decoupled decay does not depend on g).
    AMSGrad divides by the largest v so far: R is its root, and the second term stands only where v is that largest.
    """

    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the moments."""
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if settings["amsgrad"] else ("exp_avg", "exp_avg_sq")

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:
        """Return the numbers of the quotient."""
        rate, beta1, beta2 = (read_scalar(value) for value in (settings["lr"], *settings["betas"]))
        steps = stack_scalars(states, "step", rate, beta1, beta2)
        root = (1.0 - beta2**steps) ** 0.5
        return describe_quotient(
            epsilon=float(settings["eps"]) * root,
            scale=rate * root * (1.0 - beta1) / (1.0 - beta1**steps),
            bend=(1.0 - beta2) / (1.0 - beta1),
        )

    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""
        states, compute = portion.states, portion.scratch.compute
        largest = states.get("max_exp_avg_sq")
        product = compute("mul", states["exp_avg"], portion.gradients)
        if largest is not None:
            gate = compute("sub", states["exp_avg_sq"], largest)
            torch._foreach_sign_(gate)
            torch._foreach_add_(gate, 1.0)
            torch._foreach_mul_(product, gate)
        root = compute("sqrt", states["exp_avg_sq"] if largest is None else largest)
        scale_by_quotient(portion, root, product)

    def momentum(self, settings: Mapping[str, Any]) -> float:
        """Return beta1."""
        return float(settings["betas"][0])
