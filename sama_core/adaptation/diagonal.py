"""The common part of the adaptations that are a formula over an optimizer's state."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from sama_core.adaptation.contract import AbstractAdaptation, GroupView
from sama_core.adaptation.portion import Portion, limit_elements, own_memory, split_columns
from sama_core.adaptation.scalars import Scalar, spread_scalars
from sama_core.adaptation.scratch import Scratch
from sama_core.tensors import Vector


class AbstractDiagonalAdaptation(AbstractAdaptation):
    """D from the gradient and the state after the step, a portion of the parameters at a time.

    A subclass names the state it reads, gives the numbers of its formula, and the formula.
    """

    @torch.no_grad()
    def apply(self, view: GroupView, vector: Vector) -> Vector:
        """Return D times ``vector``, in its memory."""
        settings, names = view.settings, self.name_states(view.settings)
        owned = own_memory(vector)
        columns = [owned, view.gradients, *([state[name] for state in view.states] for name in names)]
        is_coupled = has_coupled_decay(settings)
        if is_coupled:
            columns.append(view.params_before)
        count = len(owned)
        constants = {
            name: spread_scalars(value, count) for name, value in self.find_constants(settings, view.states).items()
        }
        scratch = Scratch(limit_elements(owned[0]))
        for owners, pieces in split_columns(columns):
            scratch.restart()
            gradients = pieces[1]
            if is_coupled:
                gradients = scratch.compute("add", gradients, pieces[-1], alpha=float(settings["weight_decay"]))
            self.scale(
                Portion(
                    vector=pieces[0],
                    gradients=gradients,
                    states=dict(zip(names, pieces[2:], strict=False)),
                    constants={name: [values[owner] for owner in owners] for name, values in constants.items()},
                    scratch=scratch,
                )
            )
        return owned

    def needs_params(self, optimizer: Optimizer) -> bool:
        """Return True with coupled weight decay: the gradient that the formula is of contains the parameters."""
        return any(has_coupled_decay(group) for group in optimizer.param_groups)

    @abstractmethod
    def name_states(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the state tensors, shaped as the parameter, that the formula reads."""

    @abstractmethod
    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:
        """Return the numbers of the formula by name, each one for all parameters or (n,), one for each."""

    @abstractmethod
    def scale(self, portion: Portion) -> None:
        """Multiply the portion's vector by D in place."""


def has_coupled_decay(settings: Mapping[str, Any]) -> bool:
    """Return whether weight decay is added to the gradient before the optimizer sees it.

    Example:
        >>> has_coupled_decay({"weight_decay": 0.1}), has_coupled_decay({"weight_decay": 0.0})
        (True, False)
    """
    return bool(settings["weight_decay"] != 0) and not settings.get("decoupled_weight_decay", False)
