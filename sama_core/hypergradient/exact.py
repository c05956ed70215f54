"""The exact hypergradient of one optimizer step, by automatic differentiation through the step: the reference.

It keeps the graph of both levels, so it costs several times the memory of ``sama``. For checks, not for training.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from sama_core.adaptation.contract import GroupView, view_groups
from sama_core.adaptation.registry import find_adaptation
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate
from sama_core.problem import Batch, BilevelProblem
from sama_core.tensors import clone_buffers


class ExactHypergradient(AbstractHypergradient):
    """d L_meta(theta - u(g(lambda))) / dlambda by autograd, the optimizer's step written as a function."""

    copies_optimizer_state = True

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, base: BaseStep, meta: Batch
    ) -> HypergradientEstimate:
        """Return the hypergradient of the meta loss through ``base``."""
        find_adaptation(optimizer)
        views = view_groups(optimizer, base.snapshot.optimizer)
        names = [problem.names[id(p)] for view in views for p in view.params]
        theta = [p.clone().requires_grad_() for view in views for p in view.params_before]
        with torch.enable_grad():
            params = dict(zip(names, theta, strict=True))
            buffers = {name: buffer.clone() for name, buffer in base.snapshot.buffers.items()}
            losses_B = problem.evaluate(params, buffers, base.batch)
            base_loss = (problem.weigh(base.batch.rows, base.features) * losses_B).mean()
            gradients = list(torch.autograd.grad(base_loss, theta, create_graph=True))
            stepped = self._step(optimizer, base, views, gradients)
            after = dict(zip(names, stepped, strict=True))
            meta_loss = problem.evaluate(after, clone_buffers(problem.network), meta).mean()
            learned = list(problem.learned.parameters())
            hypergradient = torch.autograd.grad(meta_loss, learned, materialize_grads=True)
        return HypergradientEstimate(list(hypergradient), meta_loss.detach())

    def _step(
        self, optimizer: Optimizer, base: BaseStep, views: list[GroupView], gradients: list[Tensor]
    ) -> list[Tensor]:
        step = step_sgd if type(optimizer) is SGD else step_adam
        states = base.snapshot.optimizer.states
        stepped, cursor = [], 0
        for view in views:
            for param, before in zip(view.params, view.params_before, strict=True):
                stepped.append(step(before, gradients[cursor], states[id(param)], view.settings)[0])
                cursor += 1
        return stepped


def step_sgd(
    param: Tensor, gradient: Tensor, state: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the parameter and the state after one step of stochastic gradient descent; differentiable.

    Args:
        param: before the step.
        gradient: of the loss.
        state: before the step; empty at the first.
        settings: of the parameter group.

    Example:
        >>> settings = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
        >>> step_sgd(torch.ones(1), torch.ones(1), {}, settings)[0]
        tensor([0.9000])
    """
    seen = gradient + settings["weight_decay"] * param
    momentum = settings["momentum"]
    if momentum == 0:
        return param - settings["lr"] * seen, {}
    built = seen
    if "momentum_buffer" in state:
        built = momentum * state["momentum_buffer"] + (1.0 - settings["dampening"]) * seen
    update = seen + momentum * built if settings["nesterov"] else built
    return param - settings["lr"] * update, {"momentum_buffer": built}


def step_adam(
    param: Tensor, gradient: Tensor, state: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the parameter and the state after one step of Adam or AdamW; differentiable.

    Args:
        param: before the step.
        gradient: of the loss.
        state: before the step; empty at the first.
        settings: of the parameter group.

    Example:
        >>> settings = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
        >>> step_adam(torch.ones(1), torch.ones(1), {}, settings)[0]
        tensor([0.9000])
    """
    beta1, beta2 = settings["betas"]
    rate, decay = settings["lr"], settings["weight_decay"]
    decoupled = settings.get("decoupled_weight_decay", False)
    seen = gradient if decoupled else gradient + decay * param
    base = param * (1.0 - rate * decay) if decoupled else param
    step = float(state["step"]) + 1.0 if state else 1.0
    mean = (1.0 - beta1) * seen + (beta1 * state["exp_avg"] if state else 0.0)
    square = (1.0 - beta2) * seen * seen + (beta2 * state["exp_avg_sq"] if state else 0.0)
    # Where every gradient so far was 0 the root has no derivative; the update there is 0 either way.
    visible = torch.where(square == 0, torch.ones_like(square), square)
    root = torch.where(square == 0, torch.zeros_like(square), (visible / (1.0 - beta2**step)).sqrt())
    update = rate / (1.0 - beta1**step) * mean / (root + settings["eps"])
    return base - update, {"step": torch.tensor(step), "exp_avg": mean, "exp_avg_sq": square}
