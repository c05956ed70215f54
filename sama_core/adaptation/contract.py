"""The contract of an adaptation, and the view of an optimizer that it works on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sama_core.errors import UnsupportedOptimizerError
from sama_core.tensors import Vector, clone_vector


@dataclass(frozen=True)
class OptimizerSnapshot:
    """What must be remembered of an optimizer before its step, for the parameters in its groups' order.

    Attributes:
        params: copies of the parameters before the step, by ``id`` of the parameter.
        states: copies of the state tensors before the step, by ``id``; a parameter never stepped has none.
    """

    params: Mapping[int, Tensor]
    states: Mapping[int, Mapping[str, Tensor]]
    has_momentum: Mapping[int, bool]


@dataclass(frozen=True)
class GroupView:
    """The stepped parameters of one parameter group, just after the optimizer's step.

    Attributes:
        settings: the group's settings (lr, betas, ...).
        params: the parameters, those with a gradient only.
        params_before: their values before the step.
        gradients: the gradients of the loss at ``params_before``, as left in ``.grad``.
        states: the optimizer's state of each, after the step.
        is_first: for each, whether no momentum had been built before this step.
    """

    settings: Mapping[str, Any]
    params: Vector
    params_before: Vector
    gradients: Vector
    states: Sequence[Mapping[str, Any]]
    is_first: Sequence[bool]


class AbstractAdaptation(ABC):
    """D as an operator on vectors. D is diagonal because the supported optimizers are element-wise."""

    @abstractmethod
    def apply(self, view: GroupView, vector: Vector) -> Vector:
        """Return D times ``vector`` (aligned with ``view.params``) in fresh tensors."""


def take_snapshot(optimizer: Optimizer, *, with_states: bool = False) -> OptimizerSnapshot:
    """Remember an optimizer's parameters before its step.

    Args:
        optimizer: any ``torch.optim`` optimizer.
        with_states: copy the state tensors too (the exact reference needs them).

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> snapshot = take_snapshot(torch.optim.SGD([weight], lr=0.1))
        >>> snapshot.params[id(weight)], snapshot.has_momentum[id(weight)]
        (tensor([1., 1.]), False)
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    copies = dict(zip(map(id, params), clone_vector(params), strict=True))
    has_momentum = {id(p): optimizer.state[p].get("momentum_buffer") is not None for p in params}
    states = {}
    if with_states:
        states = {id(p): _clone_state(optimizer.state[p]) for p in params}
    return OptimizerSnapshot(copies, states, has_momentum)


def _clone_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items() if isinstance(value, Tensor)}


def view_groups(optimizer: Optimizer, snapshot: OptimizerSnapshot) -> list[GroupView]:
    """Return a view of each parameter group whose parameters were stepped.

    Raises:
        UnsupportedOptimizerError: a setting that turns the update's sign or its form is on.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> snapshot = take_snapshot(optimizer)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> view_groups(optimizer, snapshot)[0].gradients
        [tensor([1., 1.])]
    """
    views = []
    for group in optimizer.param_groups:
        params = [p for p in group["params"] if p.grad is not None]
        if params:
            check_group(group)
            views.append(
                GroupView(
                    settings=group,
                    params=params,
                    params_before=[snapshot.params[id(p)] for p in params],
                    gradients=[p.grad for p in params],
                    states=[optimizer.state[p] for p in params],
                    is_first=[not snapshot.has_momentum[id(p)] for p in params],
                )
            )
    return views


def check_group(group: Mapping[str, Any]) -> None:
    """Refuse the settings no adaptation is derived for.

    Raises:
        UnsupportedOptimizerError: ``maximize`` or ``amsgrad`` is on.

    Example:
        >>> check_group({"amsgrad": True})
        Traceback (most recent call last):
        ...
        sama_core.errors.UnsupportedOptimizerError: optimizer: amsgrad=True; wanted amsgrad=False
    """
    for setting in ("maximize", "amsgrad"):
        if group.get(setting):
            raise UnsupportedOptimizerError(f"optimizer: {setting}=True; wanted {setting}=False")


def decay_gradients(view: GroupView) -> Vector:
    """Return the gradients the update is built from: coupled weight decay adds its share.

    Example:
        >>> one = [torch.ones(1)]
        >>> view = GroupView({"weight_decay": 0.5}, one, one, one, [{}], [True])
        >>> decay_gradients(view)
        [tensor([1.5000])]
    """
    if view.settings["weight_decay"] == 0:
        return view.gradients
    return list(torch._foreach_add(view.gradients, view.params_before, alpha=float(view.settings["weight_decay"])))
