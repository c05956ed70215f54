"""The implicit hypergradient by conjugate gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sama_core.errors import OptionsError
from sama_core.hypergradient.curvature import Curvature
from sama_core.hypergradient.implicit import AbstractImplicitHypergradient
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.tensors import Vector, clone_vector


class CgHypergradient(AbstractImplicitHypergradient):
    """q = (H + damping I)^-1 grad L_meta by conjugate gradients from 0.

    Exact after as many terms as the system has distinct eigenvalues, in exact arithmetic. H of a network away from a
    minimum has negative eigenvalues too, where the method would leave its ground: at the first direction p with
    p . (H + damping I) p <= 0 it stops with what it has reached, which is 0 where that is the very first. More damping
    is the remedy: early in training the negative eigenvalues may be as large as the positive ones (-1.2 and 1.2 seen
    in a small transformer after three steps), and the default, made for networks near a minimum, stops after a few
    terms there.

    Every decision is taken on the device, by masking: the host waits for nothing, and the products after a stop are
    computed in vain.

    Args:
        route: how the directional derivatives are taken; not ghost.
        num_terms: Hessian-vector products, 0 or more. 10 by default: they resolve the few large eigenvalues of a
            classifier's Hessian (about one a class), the rest being left to the damping.
        damping: added to the Hessian's diagonal, 0 or more, in units of curvature of the mean loss. 0.01 by default:
            the bulk of a network's Hessian lies around 0, partly below it, and each such direction would be enlarged
            without bound; this limits q to 100 times the meta gradient while the eigenvalues that the data determine,
            around 1 and above, keep theirs within a hundredth. A coupled weight decay goes here too.
        tolerance: the residual to stop at, as a share of the meta gradient's norm.

    Raises:
        OptionsError: an argument lies outside its range, or the route is ghost.

    Example:
        >>> from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
        >>> CgHypergradient(ForwardModeRoute(), damping=-1.0)
        Traceback (most recent call last):
        ...
        sama_core.errors.OptionsError: damping: -1.0; wanted 0 or more

    References:
        Rajeswaran et al., Meta-Learning with Implicit Gradients, NeurIPS 2019, arXiv:1909.04630, section 3.
        Nocedal, Wright, Numerical Optimization, 2nd edition, algorithm 7.1, for stopping at negative curvature.
    """

    def __init__(
        self, route: AbstractRoute, *, num_terms: int = 10, damping: float = 1e-2, tolerance: float = 1e-6
    ) -> None:
        super().__init__(route, num_terms=num_terms, damping=damping)
        if not tolerance >= 0.0:
            raise OptionsError(f"tolerance: {tolerance}; wanted 0 or more")
        self.tolerance = tolerance

    def solve(self, curvature: Curvature, vector: Vector, rates: Sequence[float]) -> Vector:  # noqa: ARG002
        """Return what is reached after ``num_terms`` products, or at the stop."""
        reached = [torch.zeros_like(part) for part in vector]
        residual, along = clone_vector(vector), clone_vector(vector)
        square = _dot(residual, residual)
        enough = square * self.tolerance**2
        is_going = torch.ones_like(square, dtype=torch.bool)
        for _ in range(self.num_terms):
            product = curvature.multiply(along)
            bend = _dot(along, product)
            is_going = is_going & (bend > 0.0) & (square > enough)
            length = torch.where(is_going, square / bend, 0.0)
            _add_scaled(reached, along, length)
            _add_scaled(residual, product, -length)
            before, square = square, _dot(residual, residual)
            torch._foreach_mul_(along, torch.where(is_going, square / before, 0.0))
            torch._foreach_add_(along, residual)
        return reached


def _dot(left: Vector, right: Vector) -> Tensor:
    return torch.stack([torch.dot(a.flatten(), b.flatten()) for a, b in zip(left, right, strict=True)]).sum()


def _add_scaled(vector: Vector, other: Vector, factor: Tensor) -> None:
    """Add ``factor`` (a scalar on the device) times ``other`` to ``vector``, in its memory."""
    torch._foreach_add_(vector, torch._foreach_mul(other, factor))
