"""One step of a real ``torch.optim`` optimizer as a differentiable function: the reference of every derivative."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from sama_core.adaptation.nadam import schedule_momentum
from sama_core.tensors import Vector

_FORM = {"differentiable": True, "foreach": False, "fused": False, "capturable": False}
_NUMBERS = ("step", "mu_product")


def step_optimizer(
    kind: type[Optimizer],
    params: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    settings: Sequence[Mapping[str, Any]],
) -> tuple[Vector, list[dict[str, Tensor]]]:
    """Return the parameters and the states after one step, as functions of all tensors that carry a graph.

    The optimizer of torch itself does the step, built anew in its differentiable form, so that nothing is derived
    here. Runs with gradients enabled. Elements that no gradient has ever reached pass none on.

    Args:
        kind: class of the optimizer.
        params: before the step; not edited.
        gradients: aligned with them, as the optimizer is to see them (clipped).
        states: before the step, aligned; that of a first step comes from ``begin_state``. Not edited.
        settings: of each parameter's group, aligned.

    Example:
        >>> settings = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "dampening": 0.0, "nesterov": False}
        >>> gradient = torch.ones(1, requires_grad=True)
        >>> (after,), _ = step_optimizer(SGD, [torch.ones(1)], [gradient], [{}], [settings])
        >>> torch.autograd.grad(after, gradient)
        (tensor([-0.1000]),)
    """
    replicas, groups, begun = [], [], []
    for param, gradient, state, group in zip(params, gradients, states, settings, strict=True):
        idle = gradient.detach() == 0
        replica = _enter(param, gradient, idle)
        replicas.append(replica)
        groups.append({**_describe_group(kind, state, group), "params": [replica]})
        begun.append({key: _guard(value, idle) for key, value in _enter_state(kind, param, state, group).items()})
    optimizer = kind(groups, differentiable=True)  # type: ignore[call-arg]
    for replica, state in zip(replicas, begun, strict=True):
        optimizer.state[replica] = state
    optimizer.step()
    stepped = [
        replica.clone() if float(group["lr"]) != 0 else param
        for param, replica, group in zip(params, replicas, settings, strict=True)
    ]
    after = [_leave(optimizer.state[replica], state) for replica, state in zip(replicas, states, strict=True)]
    return stepped, after


def begin_state(kind: type[Optimizer], later: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state that a parameter had before its first step, told from a later one.

    Adagrad has one from the start, which a snapshot holds.

    Example:
        >>> begin_state(torch.optim.Adam, {"step": torch.tensor(2.0), "exp_avg": torch.ones(1)})
        {'step': tensor(0.), 'exp_avg': tensor([0.])}
    """
    if kind is SGD:
        return {}
    return {key: torch.ones_like(v) if key == "mu_product" else torch.zeros_like(v) for key, v in later.items()}


def _enter(param: Tensor, gradient: Tensor, idle: Tensor) -> Tensor:
    """Return the copy of a parameter that the optimizer may edit, its gradient in ``.grad``."""
    replica = _guard(param.clone(), idle)
    if replica.requires_grad:
        # Torch warns of reading .grad where it is not a leaf's, unless told that this is meant.
        replica.retain_grad()
    replica.grad = _guard(gradient.view_as(gradient), idle)
    return replica


def _describe_group(kind: type[Optimizer], state: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a group of one parameter, for the differentiable form of the optimizer."""
    # A rate of 0 leaves the parameter alone but is divided by; the states do not depend on it.
    described = {**group, **_FORM, "lr": float(group["lr"]) or 1.0}
    if kind is SGD and not state:
        described["dampening"] = 0.0
    return described


def _enter_state(
    kind: type[Optimizer], param: Tensor, state: Mapping[str, Tensor], group: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return a copy of a state, its numbers in double precision as the plain form of the optimizer has them."""
    if kind is SGD:
        # Torch cuts the graph where it makes the momentum from the first gradient; a momentum of 0 comes to the same.
        missing = {} if state or not group["momentum"] else {"momentum_buffer": torch.zeros_like(param)}
        return missing or {key: value.clone() for key, value in state.items()}
    entered = {
        key: value.to(torch.float64, copy=True) if key in _NUMBERS else value.clone() for key, value in state.items()
    }
    if "mu_product" in state:
        factor = float(schedule_momentum(group, entered["step"] + 1.0))
        rounded = state["mu_product"].clone().mul_(factor)
        entered["mu_product"] = rounded.double() / factor
    return entered


def _leave(state: Mapping[str, Any], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state, its numbers again as narrow as the optimizer keeps them."""
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return {key: value.to(before[key].dtype) if key in _NUMBERS else value for key, value in tensors.items()}


def _guard(tensor: Tensor, idle: Tensor) -> Tensor:
    """Let no infinity back through where the gradient is 0: a root has no derivative there, and nothing needs it."""
    if tensor.requires_grad:
        hook = partial(_drop_infinities, idle=idle)
        tensor.register_hook(hook)  # type: ignore[no-untyped-call]
    return tensor


def _drop_infinities(incoming: Tensor, idle: Tensor) -> Tensor:
    return incoming.masked_fill(idle & ~incoming.isfinite(), 0.0)
