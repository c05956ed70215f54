"""A trial of the ghost route against automatic differentiation, for what the layers alone do not show.

Shape suffixes: B examples of the trial, P parameters.
"""

from copy import deepcopy

import torch
from torch import Tensor

from sama_core.batch import Batch
from sama_core.errors import NetworkError
from sama_core.evidence import Evidence
from sama_core.hypergradient.routes.ghost.recording import GhostRecording
from sama_core.hypergradient.routes.ghost.route import GhostRoute
from sama_core.problem import BilevelProblem
from sama_core.randomness import isolated_randomness, seed_device
from sama_core.tensors import clone_buffers
from sama_core.types import map_inputs

_NUM_EXAMPLES = 4
_SHARE_OF_LARGEST = 1e-2


def verify(problem: BilevelProblem, batch: Batch, evidence: Evidence) -> str | None:
    """Return why the ghost route would give wrong numbers for a network, found by trying it; None where it is right.

    It sees what ``explain_refusal`` cannot: examples that are mixed between layers, a weight used without its layer,
    examples that do not lie in the first dimension. For each parameter the route's derivatives on a few examples are
    compared with those of automatic differentiation, example by example, with the same dropout masks. The trial runs
    in the parameters' own precision, without autocast, whose rounding would hide errors; on a copy of the network, a
    little off its parameters, where no gradient is 0 because a layer begins at 0. Nothing of the caller's is edited.

    Args:
        problem: one that ``explain_refusal`` lets pass.
        batch: up to 4 of its examples are used.
        evidence: on any examples; the coefficients that it gives are checked.

    Example:
        >>> from sama_core.meta.weight_network import WeightNetwork
        >>> problem = BilevelProblem(torch.nn.Linear(2, 2), WeightNetwork(4), torch.device("cpu"))
        >>> problem.learned.is_positive = True
        >>> rows, labels = torch.arange(3), torch.tensor([0, 1, 0])
        >>> evidence = Evidence(rows, labels, torch.zeros(3, 4), torch.full((3, 2), 0.5))
        >>> verify(problem, Batch(rows, torch.randn(3, 2), labels, seed=0), evidence) is None
        True
    """
    with isolated_randomness(problem.device):
        reason = _check_coefficients(problem, evidence)
        if reason is not None:
            return reason
        try:
            with torch.enable_grad():
                return _try(_copy_problem(problem), _take_examples(batch))
        except (NetworkError, RuntimeError) as error:
            return f"a trial of it failed ({str(error).splitlines()[0]})"


def _check_coefficients(problem: BilevelProblem, evidence: Evidence) -> str | None:
    with torch.no_grad():
        coefficients = problem.weigh(evidence)
    if coefficients.dim() != 1:
        return f"the loss has {coefficients[0].numel()} terms an example; wanted one"
    if not bool((coefficients > 0).all()):
        return f"a coefficient is {float(coefficients.min())}; wanted all above 0, for this route divides by them"
    return None


def _try(problem: BilevelProblem, batch: Batch) -> str | None:
    direction = {name: torch.randn_like(param) for name, param in problem.params.items()}
    losses_B = problem.evaluate(problem.params, clone_buffers(problem.network), batch)
    if losses_B.dim() != 1:
        return f"the loss has {losses_B[0].numel()} terms an example; wanted one"
    truth_BP, sizes_P = _differentiate(problem, losses_B, direction)
    del losses_B
    return _compare(problem, _record(problem, batch, direction), truth_BP, sizes_P)


def _copy_problem(problem: BilevelProblem) -> BilevelProblem:
    """Return the problem on a copy of the network, a little off its parameters, without autocast."""
    seed_device(0, problem.device)
    copy = BilevelProblem(deepcopy(problem.network), problem.learned, problem.device)
    with torch.no_grad():
        for param in copy.params.values():
            param.grad = None
            spread = 0.1 * param.square().mean().sqrt() + 0.01
            param.add_(torch.randn_like(param) * spread)
    return copy


def _take_examples(batch: Batch) -> Batch:
    """Return up to 4 of the examples; two at least, for one alone has none to be mixed with."""
    total = len(batch.labels)
    chosen = torch.arange(max(2, min(total, _NUM_EXAMPLES)), device=batch.labels.device) % total
    inputs = map_inputs(batch.inputs, lambda tensor: tensor[chosen.to(tensor.device)])
    return Batch(batch.rows[chosen.to(batch.rows.device)], inputs, batch.labels[chosen], batch.seed)


def _differentiate(problem: BilevelProblem, losses: Tensor, direction: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return grad l_i . v by example and parameter (B, P), and the largest norm of the gradients by parameter (P,)."""
    derivatives, norms = [], []
    for loss in losses:
        problem.network.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in problem.params.values()]
        pairs = zip(gradients, direction.values(), strict=True)
        derivatives.append(torch.stack([(g * v).sum().double() for g, v in pairs]))
        norms.append(torch.stack([g.norm().double() for g in gradients]))
    problem.network.zero_grad(set_to_none=True)
    return torch.stack(derivatives), torch.stack(norms).amax(0)


def _record(problem: BilevelProblem, batch: Batch, direction: dict[str, Tensor]) -> Tensor:
    """Return the route's grad l_i . v by example and parameter (B, P), for coefficients that differ."""
    num_examples = len(batch.labels)
    coefficients_B = 0.5 + torch.rand(num_examples, device=problem.device)
    with GhostRoute().record(problem) as recording:
        losses_B = problem.evaluate(problem.params, clone_buffers(problem.network), batch)
        (coefficients_B.to(losses_B.dtype) * losses_B).sum().backward()  # type: ignore[no-untyped-call]
    problem.network.zero_grad(set_to_none=True)
    return _multiply(recording, direction) / coefficients_B.double().unsqueeze(1)


@torch.no_grad()
def _multiply(recording: GhostRecording, direction: dict[str, Tensor]) -> Tensor:
    columns = [recording.differentiate({name: v}).double() for name, v in direction.items()]
    recording.clear()
    return torch.stack(columns, dim=1)


def _compare(problem: BilevelProblem, ghost: Tensor, truth: Tensor, sizes: Tensor) -> str | None:
    """Return the sentence on the parameter with the largest error, where that is larger than rounding."""
    # A gradient that vanishes in exact arithmetic (of the keys' bias in attention) is rounding and nothing else.
    floors_P = sizes + _SHARE_OF_LARGEST * sizes.max() + torch.finfo(torch.float64).tiny
    errors_P = (ghost - truth).abs().amax(0) / floors_P
    worst = int(torch.where(errors_P.isnan(), torch.inf, errors_P).argmax())
    name, error = list(problem.params)[worst], float(errors_P[worst])
    if error <= _choose_tolerance(problem):
        return None
    return (
        f"a trial on {len(ghost)} examples disagrees with automatic differentiation at parameter {name!r} "
        f"(relative error {error:.1e}): the network mixes examples, or uses the parameter outside its layer"
    )


def _choose_tolerance(problem: BilevelProblem) -> float:
    """Return the error that rounding may make: by the coarsest parameter, and where convolutions may run in TF32."""
    coarsest = max(torch.finfo(param.dtype).eps for param in problem.params.values())
    if coarsest > 1e-4:
        return 0.1
    if coarsest > 1e-10:
        return 1e-2 if problem.device.type == "cuda" else 1e-3
    # No smaller, for some layers compute in single precision whatever they are given.
    return 1e-5
