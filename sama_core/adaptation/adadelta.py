"""Adaptation of Adadelta."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sama_core.adaptation.diagonal import AbstractDiagonalAdaptation
from sama_core.adaptation.portion import Portion
from sama_core.adaptation.scalars import Scalar, read_scalar
from sama_core.errors import UnsupportedOptimizerError


class AdadeltaAdaptation(AbstractDiagonalAdaptation):
    """With the average v of g^2 after the step, w = v + eps, k = g^2 / w, and the average a of squared updates before:

        D = lr sqrt((a + eps) / w) * [ 1 - (1 - rho) k ]

    The optimizer keeps a' = rho a + (1 - rho) (a + eps) k, from which a + eps = (a' + rho eps) / (rho + (1 - rho) k).
    """

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse rho = 0 too: the average before the step is then forgotten.

        Raises:
            UnsupportedOptimizerError: ``maximize`` is on or ``rho`` is 0.
        """
        super().check(settings)
        if settings["rho"] == 0:
            raise UnsupportedOptimizerError("optimizer: Adadelta with rho=0; wanted rho above 0")

    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Return the averages."""
        return ("square_avg", "acc_delta")

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:  # noqa: ARG002 - the same at every step
        """Return ``epsilon``, ``rho``, ``rest`` = 1 - rho, ``returned`` = rho eps, and ``rate``."""
        rho, epsilon = float(settings["rho"]), float(settings["eps"])
        rate = read_scalar(settings["lr"])
        return {"epsilon": epsilon, "rho": rho, "rest": 1.0 - rho, "returned": rho * epsilon, "rate": rate}

    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""
        constants, compute = portion.constants, portion.scratch.compute
        width = compute("add", portion.states["square_avg"], constants["epsilon"])
        torch._foreach_clamp_min_(width, torch.finfo(width[0].dtype).tiny)
        bent = compute("mul", portion.gradients, portion.gradients)
        torch._foreach_div_(bent, width)
        torch._foreach_mul_(bent, constants["rest"])

        before = compute("add", portion.states["acc_delta"], constants["returned"])
        torch._foreach_div_(before, compute("add", bent, constants["rho"]))
        torch._foreach_div_(before, width)
        torch._foreach_sqrt_(before)
        torch._foreach_mul_(before, constants["rate"])

        torch._foreach_neg_(bent)
        torch._foreach_add_(bent, 1.0)
        torch._foreach_mul_(before, bent)
        torch._foreach_mul_(portion.vector, before)
