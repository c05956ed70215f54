"""SAMA: the exact hypergradient of one optimizer step without a graph through the base network.

Shape suffixes: B examples of the base batch.
"""

from contextlib import AbstractContextManager

import torch
from torch.optim import Optimizer

from sama_core.adaptation.contract import GroupView, view_groups
from sama_core.adaptation.registry import find_adaptation
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate
from sama_core.hypergradient.directional import AbstractRoute
from sama_core.problem import Batch, BilevelProblem
from sama_core.tensors import clone_buffers


class SamaHypergradient(AbstractHypergradient):
    """h = -(1/B) sum_i s_i dw_i/dlambda with s_i = grad l_i(theta) . v and v = D grad L_meta(theta').

    theta' are the parameters after the real optimizer step; s_i, the gradient and D belong to theta before it, on the
    same batch with the same dropout mask. That makes h equal to d L_meta(theta - u(g(lambda))) / dlambda for every
    element-wise optimizer whose adaptation is known.

    Args:
        route: how s_i is taken.
        adapted: False for ``sama-na``: D = lr, the optimizer's own answer ignored.

    References:
        Choe et al., Making Scalable Meta Learning Practical, NeurIPS 2023, arXiv:2310.05674.
    """

    def __init__(self, route: AbstractRoute, *, adapted: bool = True) -> None:
        self.route, self.adapted = route, adapted

    def base_context(self) -> AbstractContextManager[None]:
        """Return the context of the route: both passes must use the same kernels."""
        return self.route.attention()

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, base: BaseStep, meta: Batch
    ) -> HypergradientEstimate:
        """Return the hypergradient of the meta loss through ``base``."""
        adaptation = find_adaptation(optimizer, adapted=self.adapted)
        views = view_groups(optimizer, base.snapshot.optimizer)
        meta_loss = problem.evaluate(problem.params, clone_buffers(problem.network), meta).mean()
        stepped = [p for view in views for p in view.params]
        meta_gradients = list(torch.autograd.grad(meta_loss, stepped, materialize_grads=True))
        with torch.no_grad():
            direction, cursor = [], 0
            for view in views:
                share = meta_gradients[cursor : cursor + len(view.params)]
                direction += adaptation.apply(view, share)
                cursor += len(view.params)
        derivatives_B = self.route.differentiate(
            problem,
            base.batch,
            params=_name(problem, views, [p for view in views for p in view.params_before]),
            buffers=base.snapshot.buffers,
            direction=_name(problem, views, direction),
            gradients=_name(problem, views, [g for view in views for g in view.gradients]),
        )
        with torch.enable_grad():
            weights_B = problem.weigh(base.batch.rows, base.features)
        hypergradient = torch.autograd.grad(
            weights_B,
            list(problem.learned.parameters()),
            grad_outputs=(-derivatives_B / len(derivatives_B)).to(weights_B.dtype),
            materialize_grads=True,
        )
        return HypergradientEstimate(list(hypergradient), meta_loss.detach())


def _name(problem: BilevelProblem, views: list[GroupView], vector: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    names = [problem.names[id(p)] for view in views for p in view.params]
    return dict(zip(names, vector, strict=True))
