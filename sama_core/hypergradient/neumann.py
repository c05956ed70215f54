"""The implicit hypergradient by a truncated Neumann series."""

from collections.abc import Sequence

import torch

from sama_core.errors import OptionsError
from sama_core.hypergradient.curvature import Curvature
from sama_core.hypergradient.implicit import AbstractImplicitHypergradient
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.tensors import Vector, clone_vector


class NeumannHypergradient(AbstractImplicitHypergradient):
    """q = rate * sum_{j=0..num_terms} (I - rate (H + damping I))^j grad L_meta.

    It converges to (H + damping I)^-1 grad L_meta while rate times every eigenvalue of H + damping I lies between
    0 and 2, the error falling by the largest |1 - rate * eigenvalue| a term; beyond that it grows with the terms. Each
    term costs one Hessian-vector product. Truncated after j terms it is the gradient through j + 1 further steps of
    plain gradient descent at the optimum.

    Args:
        route: how the directional derivatives are taken; not ghost.
        num_terms: terms after the first, 0 or more; with none, q = rate * grad L_meta, which is ``sama-na`` at the
            parameters after the step. 5 by default: the reach of the series is then a few steps of training, beyond
            which a batch's Hessian says little.
        rate: above 0; None takes each parameter's own learning rate during the step, which is in the region of
            convergence where plain gradient descent is.
        damping: added to the Hessian's diagonal, 0 or more: the place for a coupled weight decay.

    Raises:
        OptionsError: an argument lies outside its range, or the route is ghost.

    Example:
        >>> from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
        >>> NeumannHypergradient(ForwardModeRoute(), rate=-1.0)
        Traceback (most recent call last):
        ...
        sama_core.errors.OptionsError: rate: -1.0; wanted above 0, or None for the optimizer's own

    References:
        Lorraine, Vicol, Duvenaud, Optimizing Millions of Hyperparameters by Implicit Differentiation, AISTATS 2020,
        arXiv:1911.02590, algorithm 3.
    """

    def __init__(
        self, route: AbstractRoute, *, num_terms: int = 5, rate: float | None = None, damping: float = 0.0
    ) -> None:
        super().__init__(route, num_terms=num_terms, damping=damping)
        if rate is not None and not rate > 0.0:
            raise OptionsError(f"rate: {rate}; wanted above 0, or None for the optimizer's own")
        self.rate = rate

    def solve(self, curvature: Curvature, vector: Vector, rates: Sequence[float]) -> Vector:
        """Return the truncated series; the terms are (I - R A)^j R v with R the diagonal of the rates."""
        factors = list(rates) if self.rate is None else [self.rate] * len(vector)
        term = list(torch._foreach_mul(vector, factors))
        total = clone_vector(term)
        for _ in range(self.num_terms):
            shrunk = curvature.multiply(term)
            torch._foreach_mul_(shrunk, factors)
            torch._foreach_sub_(term, shrunk)
            torch._foreach_add_(total, term)
        return total
