"""Adaptation of RMSprop."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sama_core.adaptation.diagonal import AbstractDiagonalAdaptation
from sama_core.adaptation.portion import Portion
from sama_core.adaptation.quotient import describe_quotient, scale_by_quotient
from sama_core.adaptation.scalars import Scalar, read_scalar


class RmspropAdaptation(AbstractDiagonalAdaptation):
    """With the averages v of g^2 and a of g after the step, and R = sqrt(v), centered R = sqrt(v - a^2):

        D = lr / (R + eps) * [ 1 - (1 - alpha) g h / (R (R + eps)) ],   h = g, centered h = g - a

    Momentum carries the update on to later steps and leaves D as it is.
    """

    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the averages."""
        return ("square_avg", "grad_avg") if settings["centered"] else ("square_avg",)

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:  # noqa: ARG002 - the same at every step
        """Return the numbers of the quotient."""
        return describe_quotient(
            epsilon=float(settings["eps"]),
            scale=read_scalar(settings["lr"]),
            bend=1.0 - float(settings["alpha"]),
        )

    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""
        squares, means = portion.states["square_avg"], portion.states.get("grad_avg")
        compute = portion.scratch.compute
        if means is None:
            root = compute("sqrt", squares)
            product = compute("mul", portion.gradients, portion.gradients)
        else:
            root = compute("addcmul", squares, means, means, value=-1.0)
            torch._foreach_clamp_min_(root, 0.0)
            torch._foreach_sqrt_(root)
            product = compute("sub", portion.gradients, means)
            torch._foreach_mul_(product, portion.gradients)
        scale_by_quotient(portion, root, product)

    def momentum(self, settings: Mapping[str, Any]) -> float:
        """Return the momentum."""
        return float(settings["momentum"])
