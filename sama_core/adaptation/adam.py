"""Adaptation of Adam and AdamW."""

import torch

from sama_core.adaptation.contract import AbstractAdaptation, GroupView, decay_gradients
from sama_core.tensors import Vector


class AdamAdaptation(AbstractAdaptation):
    """The exact derivative of Adam's update with respect to the gradient of this step.

    With m, v the moments after the step t, c1 = 1 - b1^t, c2 = 1 - b2^t, r = sqrt(v / c2):

        D = (lr / c1) * [ (1 - b1) / (r + eps) - m (1 - b2) g / (c2 r (r + eps)^2) ]

    where g is the gradient that Adam saw (coupled weight decay included; decoupled decay does not depend on g). Where
    v = 0 every gradient so far was 0 and the second term is 0.
    """

    def apply(self, view: GroupView, vector: Vector) -> Vector:
        """Return D times ``vector``."""
        settings = view.settings
        beta1, beta2 = (float(beta) for beta in settings["betas"])
        steps = [float(state["step"]) for state in view.states]
        first = [1.0 - beta1**step for step in steps]
        second = [1.0 - beta2**step for step in steps]
        coupled = not settings.get("decoupled_weight_decay", False)
        gradients = decay_gradients(view) if coupled else view.gradients

        root = torch._foreach_div([state["exp_avg_sq"] for state in view.states], second)
        torch._foreach_sqrt_(root)
        divisor = torch._foreach_add(root, float(settings["eps"]))
        torch._foreach_clamp_min_(root, torch.finfo(root[0].dtype).tiny)

        curvature = torch._foreach_mul([state["exp_avg"] for state in view.states], gradients)
        torch._foreach_mul_(curvature, [(beta2 - 1.0) / correction for correction in second])
        torch._foreach_div_(curvature, root)
        torch._foreach_div_(curvature, divisor)
        torch._foreach_add_(curvature, 1.0 - beta1)
        torch._foreach_div_(curvature, divisor)
        torch._foreach_mul_(curvature, [float(settings["lr"]) / correction for correction in first])
        torch._foreach_mul_(curvature, vector)
        return list(curvature)
