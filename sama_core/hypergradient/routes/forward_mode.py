"""Forward mode: exact, no step size, any number format and network whose layers have a forward derivative."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sama_core.hypergradient.contract import Piece
from sama_core.hypergradient.differentiable import plain_operations
from sama_core.hypergradient.routes.contract import AbstractRoute, clone_buffers
from sama_core.problem import BilevelProblem


class ForwardModeRoute(AbstractRoute):
    """s by dual numbers through the network: about the time of three forward passes.

    PyTorch's fused attention kernels and bags of embeddings have no forward derivative, hence plain ones in both
    passes.
    """

    name = "forward-mode"

    def __init__(self) -> None:
        _load_decompositions()

    @contextmanager
    def record(self, problem: BilevelProblem) -> Iterator[None]:  # noqa: ARG002 - the contract's signature
        """Ask for operations that have a forward derivative, so that both passes use the same."""
        with plain_operations():
            yield

    @torch.no_grad()
    def differentiate(
        self,
        problem: BilevelProblem,
        pieces: Sequence[Piece],
        *,
        params: Mapping[str, Tensor],
        direction: dict[str, Tensor],
        gradients: Mapping[str, Tensor],  # noqa: ARG002 - the contract's signature
    ) -> list[Tensor]:
        """Return s for each piece, exact."""
        results = []
        with forward_ad.dual_level(), plain_operations():
            duals = {
                name: forward_ad.make_dual(params[name], v)  # type: ignore[no-untyped-call]
                for name, v in direction.items()
            }
            for piece in pieces:
                losses = problem.evaluate(duals, clone_buffers(piece), piece.batch)
                tangent: Tensor | None = forward_ad.unpack_dual(losses).tangent  # type: ignore[no-untyped-call]
                results.append(torch.zeros_like(losses) if tangent is None else tangent)
        return results


@cache
def _load_decompositions() -> None:
    """Load the derivatives that PyTorch would load at the first forward-mode pass, past its own deprecation notice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch._decomp.decompositions_for_jvp  # noqa: F401
