"""Directional derivatives of the per-example losses: the routes to s_i = grad l_i(theta) . v.

Both routes evaluate the network on the base batch at the parameters before the base step, with the step's own dropout
mask and with copies of its buffers, and leave the network untouched.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from sama_core.problem import Batch, BilevelProblem
from sama_core.tensors import clone_buffers, norm_vector


class AbstractRoute(ABC):
    """One way to directional derivatives."""

    name: str

    def attention(self) -> AbstractContextManager[None]:
        """Return the context that the base pass must share with this route, so that both use the same kernels."""
        return nullcontext()

    @abstractmethod
    def differentiate(
        self,
        problem: BilevelProblem,
        batch: Batch,
        *,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        direction: dict[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> Tensor:
        """Return s (B,).

        Args:
            problem: gives the losses.
            batch: the base batch.
            params: parameters before the base step, by name: those of ``direction``.
            buffers: the network's buffers before the base step's forward pass.
            direction: v by parameter name; consumed (its memory is reused).
            gradients: gradient of the base loss, by the same names.
        """


class ForwardModeRoute(AbstractRoute):
    """Exact, no step size, any number format: about the time of three forward passes.

    PyTorch's fused attention kernels have no forward derivative, hence the plain ones for both passes.
    """

    name = "forward-mode"

    def __init__(self) -> None:
        _load_decompositions()

    @contextmanager
    def attention(self) -> Iterator[None]:
        """Ask for attention kernels that have a forward derivative."""
        with sdpa_kernel(SDPBackend.MATH):
            yield

    @torch.no_grad()
    def differentiate(
        self,
        problem: BilevelProblem,
        batch: Batch,
        *,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        direction: dict[str, Tensor],
        gradients: Mapping[str, Tensor],  # noqa: ARG002 - the contract's signature
    ) -> Tensor:
        """Return s (B,), exact."""
        with forward_ad.dual_level(), self.attention():
            duals = {
                name: forward_ad.make_dual(params[name], v)  # type: ignore[no-untyped-call]
                for name, v in direction.items()
            }
            losses_B = problem.evaluate(duals, _clone(buffers), batch)
            tangent_B: Tensor | None = forward_ad.unpack_dual(losses_B).tangent  # type: ignore[no-untyped-call]
            return torch.zeros_like(losses_B) if tangent_B is None else tangent_B


class FiniteDifferenceRoute(AbstractRoute):
    """Central difference at theta +- eps v, eps = perturbation_scale / ||v||: two passes without a graph.

    The perturbed parameters are written into the direction's own memory. The direction is 0 where the gradient is
    exactly 0: no loss of the batch depends on these parameters (embedding rows of absent words), and their huge
    adaptation would take up the whole step.

    Args:
        scale: ||eps v||; None takes a tenth of the square root of the number format's precision times the norm of
            the parameters. Networks with kinks (ReLU) want so small a step: in float32 on two such networks it gave
            cosines above 0.99999 to the exact hypergradient, where ten times the step gave 0.9999 and the one-sided
            difference at its own best step, one pass cheaper, no better than that.
    """

    name = "finite-difference"

    def __init__(self, scale: float | None = None) -> None:
        self.scale = scale

    @torch.no_grad()
    def differentiate(
        self,
        problem: BilevelProblem,
        batch: Batch,
        *,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        direction: dict[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> Tensor:
        """Return s (B,), up to the error of the difference."""
        names = list(direction)
        vectors, origins = [direction[name] for name in names], [params[name] for name in names]
        touched = torch._foreach_abs([gradients[name] for name in names])
        torch._foreach_sign_(touched)
        torch._foreach_mul_(vectors, touched)
        epsilon = self._choose_epsilon(vectors, origins)
        torch._foreach_mul_(vectors, epsilon)
        torch._foreach_add_(vectors, origins)
        above_B = problem.evaluate(direction, _clone(buffers), batch)
        torch._foreach_neg_(vectors)
        torch._foreach_add_(vectors, origins, alpha=2.0)
        below_B = problem.evaluate(direction, _clone(buffers), batch)
        return (above_B - below_B) / (2.0 * epsilon)

    def _choose_epsilon(self, vectors: list[Tensor], origins: list[Tensor]) -> Tensor:
        info = torch.finfo(vectors[0].dtype)
        norm = norm_vector(vectors).clamp_min(info.tiny)
        if self.scale is not None:
            length = torch.full_like(norm, self.scale)
        else:
            length = norm_vector(origins).clamp_min(info.eps) * (0.1 * math.sqrt(info.eps))
        return length / norm


@cache
def _load_decompositions() -> None:
    """Load the derivatives that PyTorch would load at the first forward-mode pass, past its own deprecation notice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch._decomp.decompositions_for_jvp  # noqa: F401


def _clone(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in buffers.items()}


def choose_route(name: str, scale: float | None, problem: BilevelProblem, batch: Batch) -> tuple[AbstractRoute, str]:
    """Return the route of this name and the reason; ``auto`` tries forward mode on ``batch``.

    Args:
        name: auto, forward-mode or finite-difference.
        scale: ``perturbation_scale`` of the finite difference.
        problem: gives the network.
        batch: a small batch to try on; nothing is kept of it.

    Returns:
        The route, and one sentence saying why.

    Example:
        >>> from sama_core.meta.example_logits import ExampleLogits
        >>> problem = BilevelProblem(torch.nn.Linear(2, 2), ExampleLogits(1), torch.device("cpu"))
        >>> batch = Batch(torch.tensor([0]), torch.ones(1, 2), torch.tensor([1]), seed=0)
        >>> choose_route("auto", None, problem, batch)[1]
        'forward-mode: exact, and every layer of this network has a forward derivative'
    """
    if name == FiniteDifferenceRoute.name:
        return FiniteDifferenceRoute(scale), "finite-difference, as asked for"
    if name == ForwardModeRoute.name:
        return ForwardModeRoute(), "forward-mode, as asked for"
    params = {key: p.detach() for key, p in problem.params.items()}
    direction = {key: torch.zeros_like(p) for key, p in params.items()}
    route = ForwardModeRoute()
    try:
        buffers = clone_buffers(problem.network)
        route.differentiate(problem, batch, params=params, buffers=buffers, direction=direction, gradients={})
    except (NotImplementedError, RuntimeError) as error:
        refusal = str(error).splitlines()[0][:160]
        return FiniteDifferenceRoute(scale), f"finite-difference: no forward derivative here ({refusal})"
    return route, "forward-mode: exact, and every layer of this network has a forward derivative"
