"""Adaptation of stochastic gradient descent."""

from collections.abc import Mapping
from typing import Any

import torch

from sama_core.adaptation.contract import AbstractAdaptation, GroupView
from sama_core.adaptation.portion import own_memory
from sama_core.adaptation.scalars import Scalars, read_scalar
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

    @torch.no_grad()
    def apply(self, view: GroupView, vector: Vector) -> Vector:
        """Return D times ``vector``, in its memory."""
        settings = view.settings
        rate, momentum = read_scalar(settings["lr"]), float(settings["momentum"])
        factors: Scalars = []
        for is_first in view.is_first:
            taken = 1.0 if is_first or momentum == 0 else 1.0 - float(settings["dampening"])
            factors.append(rate * (1.0 + momentum * taken if settings["nesterov"] else taken))
        owned = own_memory(vector)
        torch._foreach_mul_(owned, factors)
        return owned

    def momentum(self, settings: Mapping[str, Any]) -> float:
        """Return the momentum."""
        return float(settings["momentum"])


class PlainAdaptation(AbstractAdaptation):
    """D = lr: the optimizer's own answer to the gradient is ignored (the method ``sama-na``).

    Example:
        >>> one = [torch.ones(1)]
        >>> PlainAdaptation().apply(GroupView({"lr": 0.5}, one, one, one, [{}], [True]), one)
        [tensor([0.5000])]
    """

    @torch.no_grad()
    def apply(self, view: GroupView, vector: Vector) -> Vector:
        """Return lr times ``vector``, in its memory."""
        owned = own_memory(vector)
        factors: Scalars = [read_scalar(view.settings["lr"])] * len(owned)
        torch._foreach_mul_(owned, factors)
        return owned
