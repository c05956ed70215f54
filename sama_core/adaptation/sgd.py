"""Adaptation of stochastic gradient descent."""

import torch

from sama_core.adaptation.contract import AbstractAdaptation, GroupView
from sama_core.tensors import Vector


class SgdAdaptation(AbstractAdaptation):
    """D = lr * (1 - dampening), with Nesterov lr * (1 + momentum * (1 - dampening)); exact.

    The first step builds the momentum from the gradient itself, undamped: D = lr, with Nesterov lr * (1 + momentum).

    Example:
        >>> one = [torch.ones(1)]
        >>> settings = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": True}
        >>> SgdAdaptation().apply(GroupView(settings, one, one, one, [{}], [False]), one)
        [tensor([0.1900])]
    """

    def apply(self, view: GroupView, vector: Vector) -> Vector:
        """Return D times ``vector``."""
        settings = view.settings
        rate, momentum = float(settings["lr"]), float(settings["momentum"])
        factors = []
        for is_first in view.is_first:
            taken = 1.0 if is_first or momentum == 0 else 1.0 - float(settings["dampening"])
            factors.append(rate * (1.0 + momentum * taken if settings["nesterov"] else taken))
        return list(torch._foreach_mul(vector, factors))


class PlainAdaptation(AbstractAdaptation):
    """D = lr: the optimizer's own answer to the gradient is ignored (the method ``sama-na``).

    Example:
        >>> one = [torch.ones(1)]
        >>> PlainAdaptation().apply(GroupView({"lr": 0.5}, one, one, one, [{}], [True]), one)
        [tensor([0.5000])]
    """

    def apply(self, view: GroupView, vector: Vector) -> Vector:
        """Return lr times ``vector``."""
        return list(torch._foreach_mul(vector, float(view.settings["lr"])))
