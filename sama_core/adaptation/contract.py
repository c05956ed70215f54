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
        params: copies of the parameters before the step, by ``id`` of the parameter; empty where not asked for.
        states: copies of the state tensors before the step, by ``id``; empty where not asked for.
        has_momentum: by ``id``, whether a momentum had been built before the step.
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
        params_before: their values before the step; empty where they were not kept.
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
        """Return D times ``vector`` (aligned with ``view.params``), in the memory of ``vector``."""

    def needs_params(self, optimizer: Optimizer) -> bool:  # noqa: ARG002 - subclasses look at its groups
        """Return whether D depends on the parameters before the step (through coupled weight decay)."""
        return False

    def momentum(self, settings: Mapping[str, Any]) -> float:  # noqa: ARG002
        """Return the share of a step's update direction that the next step repeats, in [0, 1)."""
        return 0.0

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse the settings of a parameter group that no derivative is known for.

        Raises:
            UnsupportedOptimizerError: ``maximize`` is on.
        """
        if settings.get("maximize"):
            raise UnsupportedOptimizerError("optimizer: maximize=True; wanted maximize=False")


def take_snapshot(optimizer: Optimizer, *, with_params: bool = True, with_states: bool = False) -> OptimizerSnapshot:
    """Remember an optimizer's parameters before its step.

    Args:
        optimizer: any ``torch.optim`` optimizer.
        with_params: copy the parameters.
        with_states: copy the state tensors too (the exact reference needs them).

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> snapshot = take_snapshot(torch.optim.SGD([weight], lr=0.1))
        >>> snapshot.params[id(weight)], snapshot.has_momentum[id(weight)]
        (tensor([1., 1.]), False)
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    copies = dict(zip(map(id, params), clone_vector(params), strict=True)) if with_params else {}
    states = {id(p): optimizer.state.get(p, {}) for p in params}
    has_momentum = {key: state.get("momentum_buffer") is not None for key, state in states.items()}
    kept = {key: _clone_state(state) for key, state in states.items()} if with_states else {}
    return OptimizerSnapshot(copies, kept, has_momentum)


def _clone_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items() if isinstance(value, Tensor)}


def view_groups(
    optimizer: Optimizer, snapshot: OptimizerSnapshot, settings: Sequence[Mapping[str, Any]] | None = None
) -> list[GroupView]:
    """Return a view of each parameter group whose parameters were stepped.

    Args:
        optimizer: just after its step, the gradients still in ``.grad``.
        snapshot: taken before the step.
        settings: of each group, as they were during the step; None takes those it has now.

    Raises:
        UnsupportedOptimizerError: a gradient is sparse or a parameter complex.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> snapshot = take_snapshot(optimizer)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> view_groups(optimizer, snapshot)[0].gradients
        [tensor([1., 1.])]
    """
    groups: Sequence[Mapping[str, Any]] = optimizer.param_groups
    views = []
    for group, used in zip(groups, settings or groups, strict=True):
        params = [p for p in group["params"] if p.grad is not None]
        if params:
            _check_params(params)
            views.append(
                GroupView(
                    settings=used,
                    params=params,
                    params_before=[snapshot.params[id(p)] for p in params] if snapshot.params else [],
                    gradients=[p.grad for p in params],
                    states=[optimizer.state.get(p, {}) for p in params],
                    is_first=[not snapshot.has_momentum[id(p)] for p in params],
                )
            )
    return views


def _check_params(params: Sequence[Tensor]) -> None:
    if any(p.is_complex() for p in params):
        raise UnsupportedOptimizerError("optimizer: a complex parameter; wanted real ones")
    if any(p.grad is not None and p.grad.layout is not torch.strided for p in params):
        raise UnsupportedOptimizerError("optimizer: a sparse gradient; wanted dense ones")
