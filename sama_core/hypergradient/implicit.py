"""What the implicit methods share: the implicit function theorem, up to how its linear system is solved."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.batch import Batch
from sama_core.errors import OptionsError
from sama_core.hypergradient.contract import (
    AbstractHypergradient,
    BaseStep,
    HypergradientEstimate,
    differentiate_meta,
    pull_back,
)
from sama_core.hypergradient.curvature import Curvature, list_stepped
from sama_core.hypergradient.differentiable import plain_operations
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.problem import BilevelProblem
from sama_core.tensors import Vector


class AbstractImplicitHypergradient(AbstractHypergradient):
    """h = -(d2 L_base / dlambda dtheta) q with (H + damping I) q = grad L_meta, all at theta' after the base step.

    It is the hypergradient of training to the end, exact where theta' minimises the base loss; H is the Hessian of the
    last base step's batch, under its own dropout masks. A subclass says how q is found. The mixed derivative needs no
    graph: h = -(1/B) sum_ik s_ik dc_ik/dlambda with s_ik = grad l_ik(theta') . q, taken by a route.

    The base loss is what the network is trained on without the optimizer's own weight decay. An optimizer that couples
    its decay to the gradient minimises L_base + decay/2 ||theta||^2: set ``damping`` to the decay for its Hessian.

    The passes run on plain attention kernels, the fused ones having no second derivative.

    Args:
        route: how s is taken; one that evaluates the network at parameters of our choice.
        num_terms: Hessian-vector products at most.
        damping: added to the Hessian's diagonal, 0 or more.

    Raises:
        OptionsError: the route works inside the base step's own backward pass, or a number is negative.
    """

    def __init__(self, route: AbstractRoute, *, num_terms: int, damping: float) -> None:
        if not route.needs_params:
            raise OptionsError(
                f"route: {route.name}, which differentiates at the parameters before the base step; an implicit "
                "hypergradient wants forward-mode or finite-difference, which can do so after it"
            )
        if num_terms < 0:
            raise OptionsError(f"num_terms: {num_terms}; wanted 0 or more")
        if not damping >= 0.0:
            raise OptionsError(f"damping: {damping}; wanted 0 or more")
        self.route, self.num_terms, self.damping = route, num_terms, damping

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:  # noqa: ARG002
        """Remember nothing of the parameters: everything happens after the step."""
        return take_snapshot(optimizer, with_params=False)

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the implicit hypergradient at the parameters after the last of ``steps``, on that step's batch."""
        last, params = steps[-1], list_stepped(optimizer)
        # The base pass gave its losses before the step: they belong to other parameters.
        pieces = [replace(piece, losses=None, recording=None) for piece in last.pieces]
        meta_loss, vector = differentiate_meta(problem, params, meta)
        names = [problem.names[id(p)] for p in params]
        with plain_operations():
            curvature = Curvature(problem, pieces, params, self.damping)
            with torch.no_grad():
                direction = self.solve(curvature, vector, list_rates(optimizer, last))
            del curvature, vector  # the graph and its activations, before the route's own passes
            derivatives = self.route.differentiate(
                problem,
                pieces,
                params={name: p.detach() for name, p in zip(names, params, strict=True)},
                direction=dict(zip(names, direction, strict=True)),
                gradients={name: _gradient(p) for name, p in zip(names, params, strict=True)},
            )
        return HypergradientEstimate(pull_back(problem, pieces, derivatives), meta_loss)

    @abstractmethod
    def solve(self, curvature: Curvature, vector: Vector, rates: Sequence[float]) -> Vector:
        """Return q, the solution of A q = ``vector`` as far as the method goes.

        Args:
            curvature: A = H + damping I.
            vector: the meta gradient; not edited, for autograd may have given one tensor for two parameters.
            rates: the learning rate of each parameter during the step.
        """


def list_rates(optimizer: Optimizer, step: BaseStep) -> list[float]:
    """Return the learning rate that each stepped parameter had during ``step``.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> weight.sum().backward()
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> list_rates(optimizer, BaseStep([], [{"lr": 0.5}], take_snapshot(optimizer)))
        [0.5]
    """
    return [
        float(settings["lr"])
        for group, settings in zip(optimizer.param_groups, step.settings, strict=True)
        for p in group["params"]
        if p.grad is not None
    ]


def _gradient(param: Tensor) -> Tensor:
    assert param.grad is not None, "only parameters with a gradient were stepped"
    return param.grad
