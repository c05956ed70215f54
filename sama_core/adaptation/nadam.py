"""Adaptation of NAdam."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sama_core.adaptation.diagonal import AbstractDiagonalAdaptation
from sama_core.adaptation.portion import Portion
from sama_core.adaptation.quotient import describe_quotient, scale_by_quotient
from sama_core.adaptation.scalars import Scalar, read_scalar, stack_scalars


class NadamAdaptation(AbstractDiagonalAdaptation):
    """Adam's derivative with Nesterov's look ahead: the numerator is n = k m + g in units of its share of g.

    With mu_t = b1 (1 - 0.96^(t psi) / 2), P_t their product so far, c2 = 1 - b2^t, R = sqrt(v), e = eps sqrt(c2):

        k = mu_{t+1} (1 - P_t) / ((1 - P_{t+1}) (1 - mu_t)),   s = lr sqrt(c2) (1 - mu_t) / (1 - P_t)
        D = s / (R + e) * [ 1 + k (1 - b1) - (1 - b2) n g / (R (R + e)) ]
    """

    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Return the moments."""
        return ("exp_avg", "exp_avg_sq")

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:
        """Return the numbers of the quotient, and ``share``, k."""
        rate, beta1, beta2 = (read_scalar(value) for value in (settings["lr"], *settings["betas"]))
        steps = stack_scalars(states, "step", rate, beta1, beta2)
        products = stack_scalars(states, "mu_product", steps)
        now, ahead = (schedule_momentum(settings, steps + shift) for shift in (0.0, 1.0))
        share = ahead * (1.0 - products) / ((1.0 - products * ahead) * (1.0 - now))
        root = (1.0 - beta2**steps) ** 0.5
        answer = 1.0 + share * (1.0 - beta1)
        quotient = describe_quotient(
            epsilon=float(settings["eps"]) * root,
            scale=rate * root * answer * (1.0 - now) / (1.0 - products),
            bend=(1.0 - beta2) / answer,
        )
        return {**quotient, "share": share}

    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""
        compute = portion.scratch.compute
        product = compute("mul", portion.states["exp_avg"], portion.constants["share"])
        torch._foreach_add_(product, portion.gradients)
        torch._foreach_mul_(product, portion.gradients)
        scale_by_quotient(portion, compute("sqrt", portion.states["exp_avg_sq"]), product)

    def momentum(self, settings: Mapping[str, Any]) -> float:
        """Return beta1."""
        return float(settings["betas"][0])


def schedule_momentum(settings: Mapping[str, Any], steps: Tensor) -> Tensor:
    """Return mu of the given steps, 1 the first.

    Example:
        >>> settings = {"betas": (0.8, 0.999), "momentum_decay": 1.0}
        >>> schedule_momentum(settings, torch.tensor([1.0]))
        tensor([0.4160])
    """
    beta1 = read_scalar(settings["betas"][0])
    return beta1 * (1.0 - 0.5 * 0.96 ** (steps * float(settings["momentum_decay"])))
