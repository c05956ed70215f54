"""The implicit hypergradient by dense linear algebra: the reference of the implicit methods."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.batch import Batch
from sama_core.errors import NetworkError
from sama_core.hypergradient.contract import (
    AbstractHypergradient,
    BaseStep,
    HypergradientEstimate,
    differentiate_meta,
)
from sama_core.hypergradient.curvature import evaluate_base, list_stepped
from sama_core.hypergradient.differentiable import plain_operations
from sama_core.problem import BilevelProblem
from sama_core.tensors import Vector


class ExactHypergradient(AbstractHypergradient):
    """h = -(d2 L_base / dlambda dtheta) (H + damping I)^-1 grad L_meta at theta', with the whole Hessian in memory.

    Autograd all the way: no route, no closed form of the mixed derivative. For tests and small networks; the time
    grows with the number of parameters, the memory with its square. The gradient through one optimizer step, the other
    exact reference, is ``unrolled``.

    Args:
        damping: added to the Hessian's diagonal, 0 or more: the place for a coupled weight decay. A Hessian can be
            singular by nature (class scores can all be shifted without a loss), then some damping is needed.
        max_params: refuse more parameters than this; 5,000 make a Hessian of 200 MB in double precision.

    Raises:
        NetworkError: on ``estimate``: too many parameters, or a singular Hessian.

    References:
        The implicit function theorem, as in Lorraine et al., arXiv:1911.02590, theorem 1.
    """

    def __init__(self, *, damping: float = 0.0, max_params: int = 5_000) -> None:
        self.damping, self.max_params = damping, max_params

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:  # noqa: ARG002
        """Remember nothing of the parameters: everything happens after the step."""
        return take_snapshot(optimizer, with_params=False)

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the implicit hypergradient at the parameters after the last of ``steps``, on that step's batch.

        Raises:
            NetworkError: the network has more than ``max_params`` parameters, or the Hessian is singular.
        """
        params, learned = list_stepped(optimizer), list(problem.learned.parameters())
        count = sum(p.numel() for p in params)
        if count > self.max_params:
            raise NetworkError(
                f"network: {count:,} trainable parameters; the exact hypergradient wants at most {self.max_params:,}, "
                "for it holds the whole Hessian: take cg or neumann"
            )
        meta_loss, vector = differentiate_meta(problem, params, meta)
        with torch.enable_grad(), plain_operations():
            loss = evaluate_base(problem, steps[-1].pieces)
            gradient = _flatten(torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True))
            hessian = _build_hessian(gradient, params)
            problem.exchange.add_up([hessian])
            solution = self._solve(hessian, _flatten(vector))
            mixed = list(torch.autograd.grad(gradient, learned, grad_outputs=-solution, materialize_grads=True))
        problem.exchange.add_up(mixed)
        return HypergradientEstimate(mixed, meta_loss)

    @torch.no_grad()
    def _solve(self, hessian: Tensor, vector: Tensor) -> Tensor:
        matrix = hessian.double()
        matrix.diagonal().add_(self.damping)
        solution, info = torch.linalg.solve_ex(matrix, vector.double())
        if int(info) != 0:
            raise NetworkError(
                f"network: the Hessian of its base loss is singular with damping {self.damping}; wanted more damping"
            )
        q: Tensor = solution.to(vector.dtype)
        return q


def _flatten(vector: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in vector])


def _build_hessian(gradient: Tensor, params: Vector) -> Tensor:
    """Return the derivative of a flat gradient, row by row."""
    if not gradient.requires_grad:
        return gradient.new_zeros(len(gradient), len(gradient))
    rows = [
        _flatten(torch.autograd.grad(component, params, retain_graph=True, materialize_grads=True))
        for component in gradient.unbind()
    ]
    return torch.stack(rows)
