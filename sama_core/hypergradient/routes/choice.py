"""Which route a network takes."""

import torch

from sama_core.batch import Batch
from sama_core.errors import OptionsError
from sama_core.evidence import Evidence
from sama_core.hypergradient.contract import Piece
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.hypergradient.routes.finite_difference import FiniteDifferenceRoute
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.routes.ghost import GhostRoute, explain_refusal, retained_bytes, verify
from sama_core.losses import mean_loss
from sama_core.options import CurationOptions
from sama_core.problem import BilevelProblem
from sama_core.tensors import clone_buffers
from sama_core.types import map_inputs

_PROBE_SIZE = 8
_SMALL_BYTES = 16 * 2**20  # no machine misses these


def choose_route(
    options: CurationOptions, problem: BilevelProblem, batch: Batch, evidence: Evidence, *, moves: bool = False
) -> tuple[AbstractRoute, str]:
    """Return a route and the reason for it.

    ``auto`` takes the ghost route where the network's layers allow it, a trial on a few examples agrees with
    automatic differentiation, and what it keeps of a pass is little, or less than the copy of the parameters that the
    others need. Next comes the finite difference; in half precision, which is too coarse for it, forward mode.

    Args:
        options: ``route``, ``perturbation_scale``, and what rules a route out.
        problem: gives the network.
        batch: a batch of the usual size to try on; nothing is kept of it.
        evidence: on that batch.
        moves: the derivatives are wanted at other parameters than those of the base pass, which rules out the ghost.

    Raises:
        OptionsError: the route asked for cannot serve this network.

    Example:
        >>> import torch
        >>> from sama_core.meta.weight_network import WeightNetwork
        >>> problem = BilevelProblem(torch.nn.Linear(9, 2), WeightNetwork(4), torch.device("cpu"))
        >>> batch = Batch(torch.tensor([0]), torch.ones(1, 9), torch.tensor([1]), seed=0)
        >>> evidence = Evidence(batch.rows, batch.labels, torch.zeros(1, 4), torch.full((1, 2), 0.5))
        >>> choose_route(CurationOptions(), problem, batch, evidence)[1]
        'ghost: exact, inside the base backward; every layer of this network is covered'
    """
    difference = FiniteDifferenceRoute(options.perturbation_scale)
    if options.route in (FiniteDifferenceRoute.name, ForwardModeRoute.name):
        is_forward = options.route == ForwardModeRoute.name
        return ForwardModeRoute() if is_forward else difference, f"{options.route}, as asked for"
    refusal = _refuse_ghost(options, problem, batch, evidence, moves=moves)
    if options.route == GhostRoute.name:
        if refusal is not None:
            raise OptionsError(f"route: ghost, but {refusal}; wanted auto, finite-difference or forward-mode")
        return GhostRoute(), "ghost, as asked for"
    if refusal is None:
        refusal = _weigh_memory(problem, batch, evidence)
    if refusal is None:
        return GhostRoute(), "ghost: exact, inside the base backward; every layer of this network is covered"
    if problem.precision.is_half:
        failure = _try_forward_mode(problem, batch, evidence)
        if failure is None:
            return ForwardModeRoute(), f"forward-mode: exact in {problem.precision.name}; not ghost: {refusal}"
        refusal = f"{refusal}; not forward-mode: {failure}"
    return difference, f"finite-difference: one forward pass; not ghost: {refusal}"


def _refuse_ghost(
    options: CurationOptions, problem: BilevelProblem, batch: Batch, evidence: Evidence, *, moves: bool
) -> str | None:
    if moves:
        return "this method differentiates at other parameters than the base pass"
    if options.compile:
        return "the network is compiled"
    if options.every_step:
        return "the batches of every step are used"
    refusal = explain_refusal(problem)
    if refusal is not None:
        return refusal
    return verify(problem, *_take(batch, evidence))


def _weigh_memory(problem: BilevelProblem, batch: Batch, evidence: Evidence) -> str | None:
    """Compare what the route keeps of a pass over ``batch`` with a copy of the parameters."""
    small, known = _take(batch, evidence)
    gradients = {name: p.grad for name, p in problem.params.items()}
    buffers = clone_buffers(problem.network)
    for param in problem.params.values():
        param.grad = None  # a backward pass would add to the caller's in place
    try:
        with GhostRoute().record(problem) as recording:
            losses = problem.evaluate(problem.params, buffers, small)
            mean_loss(problem.weigh(known).detach(), losses).backward()  # type: ignore[no-untyped-call]
    finally:
        for name, gradient in gradients.items():
            problem.params[name].grad = gradient
    kept = retained_bytes(recording) * len(batch.labels) // len(small.labels)
    copy = sum(p.numel() * p.element_size() for p in problem.params.values())
    if kept <= max(copy, _SMALL_BYTES):
        return None
    return f"it would keep {kept / 2**20:.0f} MiB of activations, more than the {copy / 2**20:.0f} MiB of parameters"


def _try_forward_mode(problem: BilevelProblem, batch: Batch, evidence: Evidence) -> str | None:
    """Return what keeps forward mode from this network, or None."""
    small, known = _take(batch, evidence)
    params = {key: p.detach() for key, p in problem.params.items()}
    direction = {key: torch.zeros_like(p) for key, p in params.items()}
    piece = Piece(small, known, None, clone_buffers(problem.network), len(small.labels))
    try:
        ForwardModeRoute().differentiate(problem, [piece], params=params, direction=direction, gradients={})
    except (NotImplementedError, RuntimeError) as error:
        return f"a layer has no forward derivative ({str(error).splitlines()[0][:120]})"
    return None


def _take(batch: Batch, evidence: Evidence) -> tuple[Batch, Evidence]:
    """Return the first examples of a batch, and the evidence on them."""
    part = slice(_PROBE_SIZE)
    inputs = map_inputs(batch.inputs, lambda tensor: tensor[part].clone())
    small = Batch(batch.rows[part], inputs, batch.labels[part], batch.seed)
    return small, Evidence(small.rows, small.labels, evidence.features[part], evidence.predictions[part])
