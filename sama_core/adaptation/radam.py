"""Adaptation of RAdam."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sama_core.adaptation.diagonal import AbstractDiagonalAdaptation
from sama_core.adaptation.portion import Portion
from sama_core.adaptation.quotient import describe_quotient, scale_by_quotient
from sama_core.adaptation.scalars import Scalar, read_scalar, stack_scalars


class RadamAdaptation(AbstractDiagonalAdaptation):
    """Adam's derivative times the rectification, once the variance is known well enough; a constant before.

    With rho the length of the averaged window, c1 = 1 - b1^t, c2 = 1 - b2^t, R = sqrt(v):

        rho <= 5:  D = lr (1 - b1) / c1
        rho >  5:  D = lr rect sqrt(c2) / (c1 (R + eps)) * [ (1 - b1) - (1 - b2) m g / (R (R + eps)) ]

    Both branches are added up, one of them with the factor 0: only the device may know the step that decides.
    """

    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Return the moments."""
        return ("exp_avg", "exp_avg_sq")

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:
        """Return the numbers of the quotient, its factor ``known``, and ``plain``, what stands where that is 0."""
        rate, beta1, beta2 = (read_scalar(value) for value in (settings["lr"], *settings["betas"]))
        steps = stack_scalars(states, "step", rate, beta1, beta2)
        correction = 1.0 - beta2**steps
        longest = 2.0 / (1.0 - beta2) - 1.0
        length = longest - 2.0 * steps * beta2**steps / correction
        rectified = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
        is_known = length > 5.0
        scale = rate * (1.0 - beta1) / (1.0 - beta1**steps)
        quotient = describe_quotient(
            epsilon=float(settings["eps"]),
            scale=scale * torch.where(is_known, rectified * correction, 1.0).sqrt(),
            bend=(1.0 - beta2) / (1.0 - beta1),
        )
        return {**quotient, "known": is_known.double(), "plain": scale * ~is_known}

    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""
        compute = portion.scratch.compute
        plain = compute("mul", portion.vector, portion.constants["plain"])
        product = compute("mul", portion.states["exp_avg"], portion.gradients)
        scale_by_quotient(portion, compute("sqrt", portion.states["exp_avg_sq"]), product)
        torch._foreach_mul_(portion.vector, portion.constants["known"])
        torch._foreach_add_(portion.vector, plain)

    def momentum(self, settings: Mapping[str, Any]) -> float:
        """Return beta1."""
        return float(settings["betas"][0])
