"""Adaptation of Adagrad."""

from collections.abc import Mapping, Sequence
from typing import Any

from sama_core.adaptation.diagonal import AbstractDiagonalAdaptation
from sama_core.adaptation.portion import Portion
from sama_core.adaptation.quotient import describe_quotient, scale_by_quotient
from sama_core.adaptation.scalars import Scalar, read_scalar, stack_scalars


class AdagradAdaptation(AbstractDiagonalAdaptation):
    """With the sum of g^2 after the step t, R its root, and lr_t = lr / (1 + (t - 1) lr_decay):

    D = lr_t / (R + eps) * [ 1 - g^2 / (R (R + eps)) ]
    """

    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Return the sum of squares."""
        return ("sum",)

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:
        """Return the numbers of the quotient."""
        rate = read_scalar(settings["lr"])
        steps = stack_scalars(states, "step", rate)
        decayed = rate / (1.0 + (steps - 1.0) * float(settings["lr_decay"]))
        return describe_quotient(epsilon=float(settings["eps"]), scale=decayed, bend=1.0)

    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""
        compute = portion.scratch.compute
        product = compute("mul", portion.gradients, portion.gradients)
        scale_by_quotient(portion, compute("sqrt", portion.states["sum"]), product)
