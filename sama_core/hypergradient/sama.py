"""SAMA: the exact hypergradient of one optimizer step without a graph through the base network."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch.optim import Optimizer

from sama_core.adaptation.contract import GroupView, OptimizerSnapshot, take_snapshot, view_groups
from sama_core.adaptation.registry import find_adaptation
from sama_core.batch import Batch
from sama_core.hypergradient.contract import (
    AbstractHypergradient,
    AbstractRecording,
    BaseStep,
    HypergradientEstimate,
    differentiate_meta,
    pull_back,
)
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.problem import BilevelProblem
from sama_core.tensors import Vector, clone_vector


class SamaHypergradient(AbstractHypergradient):
    """h = -(1/B) sum_i s_i dw_i/dlambda with s_i = grad l_i(theta) . v and v = D grad L_meta(theta').

    theta' are the parameters after the real optimizer step; s_i, the gradient and D belong to theta before it, on the
    same batch with the same dropout mask. That makes h equal to d L_meta(theta - u(g(lambda))) / dlambda for every
    element-wise optimizer whose adaptation is known.

    With several base steps to a meta step that is the last step's share of the whole. ``every_step`` adds the shares
    of the earlier ones along the same v, at the theta before the last step, each enlarged by the momentum that has
    carried its gradient on since; it costs one more pass over each of their batches.

    Args:
        route: how s_i is taken.
        adapted: False for ``sama-na``: D = lr, the optimizer's own answer ignored.
        every_step: use the batches of all base steps since the last meta step.
        keeps_direction: put v into the estimate.

    References:
        Choe et al., Making Scalable Meta Learning Practical, NeurIPS 2023, arXiv:2310.05674.
    """

    def __init__(
        self, route: AbstractRoute, *, adapted: bool = True, every_step: bool = False, keeps_direction: bool = False
    ) -> None:
        self.route, self.adapted, self.keeps_direction = route, adapted, keeps_direction
        self.uses_every_step = every_step

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:  # noqa: ARG002
        """Remember the parameters before the last step, where the route or the adaptation needs them."""
        adaptation = find_adaptation(optimizer, adapted=self.adapted)
        needs_params = is_last and (self.route.needs_params or adaptation.needs_params(optimizer))
        return take_snapshot(optimizer, with_params=needs_params)

    def record(self, problem: BilevelProblem) -> AbstractContextManager[AbstractRecording | None]:
        """Return the context of the route."""
        return self.route.record(problem)

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the hypergradient of the meta loss through the last of ``steps``, or through all of them."""
        last = steps[-1]
        views = view_groups(optimizer, last.snapshot, last.settings)
        stepped = [p for view in views for p in view.params]
        meta_loss, meta_gradient = differentiate_meta(problem, stepped, meta)
        direction = self._adapt(optimizer, last, views, meta_gradient)
        del meta_gradient
        used = list(steps) if self.uses_every_step else [last]
        pieces = [piece if step is last else replace(piece, losses=None) for step in used for piece in step.pieces]
        names = [problem.names[id(p)] for p in stepped]
        kept = dict(zip(names, clone_vector(direction), strict=True)) if self.keeps_direction else None
        before = [p for view in views for p in view.params_before] if self.route.needs_params else []
        derivatives = self.route.differentiate(
            problem,
            pieces,
            params=dict(zip(names, before, strict=True)) if before else {},
            direction=dict(zip(names, direction, strict=True)),
            gradients=dict(zip(names, [g for view in views for g in view.gradients], strict=True)),
        )
        factors = self._persist(optimizer, used)
        scaled = [factor * s for factor, s in zip(factors, derivatives, strict=True)]
        return HypergradientEstimate(pull_back(problem, pieces, scaled), meta_loss, kept)

    @torch.no_grad()
    def _adapt(self, optimizer: Optimizer, last: BaseStep, views: list[GroupView], gradient: Vector) -> Vector:
        """Return v, in the memory of the meta gradient."""
        adaptation = find_adaptation(optimizer, adapted=self.adapted)
        direction: Vector = []
        for view in views:
            share = gradient[len(direction) : len(direction) + len(view.params)]
            direction += adaptation.apply(view, share)
        if last.clipping is not None:
            direction = last.clipping.pull_back([g for view in views for g in view.gradients], direction)
        return direction

    def _persist(self, optimizer: Optimizer, steps: Sequence[BaseStep]) -> list[float]:
        """Return, for each piece, how much of its gradient has arrived at theta', as a multiple of the last step's."""
        momentum = find_adaptation(optimizer, adapted=self.adapted).momentum(optimizer.param_groups[0])
        factors: list[float] = []
        for lag, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            factor = sum(momentum**power for power in range(lag + 1))
            factors += [factor] * len(step.pieces)
        return factors
