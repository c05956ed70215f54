"""The hypergradient by automatic differentiation through real optimizer steps: the reference of the others."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sama_core.adaptation.clipping import clip_vector
from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.adaptation.registry import find_adaptation
from sama_core.batch import Batch
from sama_core.exchange import AbstractExchange
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate
from sama_core.hypergradient.differentiable import plain_operations
from sama_core.hypergradient.optimizer_step import begin_state, step_optimizer
from sama_core.losses import mean_loss
from sama_core.problem import BilevelProblem
from sama_core.tensors import Vector, clone_buffers

_Named = dict[str, Tensor]


@dataclass(frozen=True)
class _Point:
    """Every trainable parameter and its optimizer state at one moment of the replay, by name."""

    params: _Named
    states: dict[str, Mapping[str, Tensor]]


class UnrolledHypergradient(AbstractHypergradient):
    """dL_meta(theta_k) / dlambda through every base step since the last meta step, each done again with a graph.

    With one base step to a meta step it is the exact one-step hypergradient. It keeps the graph of all k steps, so its
    memory grows with k and its time is several times that of the steps: for small networks, and for checks.

    The evidence of each step stays a constant, as it is for every method. Dropout masks, BatchNorm statistics,
    settings and clipping are those of the step replayed.

    Example:
        >>> from sama_core.evidence import Evidence
        >>> from sama_core.hypergradient.contract import Piece
        >>> from sama_core.meta.example_logits import ExampleLogits
        >>> network = torch.nn.Linear(1, 2, bias=False)
        >>> problem = BilevelProblem(network, ExampleLogits(2), torch.device("cpu"))
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        >>> method = UnrolledHypergradient()
        >>> snapshot = method.prepare(optimizer, is_first=True, is_last=True)
        >>> batch = Batch(torch.arange(2), torch.ones(2, 1), torch.tensor([0, 1]), seed=0)
        >>> losses = problem.evaluate(problem.params, {}, batch)
        >>> losses.mean().backward()
        >>> optimizer.step()
        >>> evidence = Evidence(batch.rows, batch.labels, torch.zeros(2, 0), torch.zeros(2, 2))
        >>> piece = Piece(batch, evidence, losses.detach(), {}, num_examples=2)
        >>> step = BaseStep([piece], [dict(optimizer.param_groups[0])], snapshot)
        >>> meta = Batch(torch.arange(1), torch.ones(1, 1), torch.tensor([0]), seed=0)
        >>> (hypergradient,) = method.estimate(problem, optimizer, [step], meta).hypergradient
        >>> hypergradient.sign()
        tensor([-1.,  1.])

    References:
        Maclaurin et al., Gradient-based Hyperparameter Optimization through Reversible Learning, ICML 2015.
    """

    uses_every_step = True

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:  # noqa: ARG002
        """Remember the parameters and the optimizer's state before the first step.

        Raises:
            UnsupportedOptimizerError: the optimizer is none of those with a known adaptation.
        """
        find_adaptation(optimizer)
        return take_snapshot(optimizer, with_params=is_first, with_states=is_first)

    @contextmanager
    def record(self, problem: BilevelProblem) -> Iterator[None]:  # noqa: ARG002 - the contract's signature
        """Ask for operations that have a second derivative, so that both passes use the same."""
        with plain_operations():
            yield

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the hypergradient of the meta loss through all of ``steps``; the first one's snapshot is complete."""
        exchange, learned = problem.exchange, list(problem.learned.parameters())
        point = _begin(problem, optimizer, steps[0].snapshot)
        with torch.enable_grad(), plain_operations():
            for step in steps:
                gradients = _differentiate_base(problem, point.params, step)
                point = _descend(problem, optimizer, step, point, gradients)
            judged = dict(zip(point.params, _join(exchange, list(point.params.values())), strict=True))
            meta_loss = problem.evaluate_meta(judged, clone_buffers(problem.network), meta) * meta.share
            hypergradient = list(torch.autograd.grad(meta_loss, learned, materialize_grads=True))
        meta_loss = meta_loss.detach()
        exchange.add_up([meta_loss, *hypergradient])
        return HypergradientEstimate(hypergradient, meta_loss)


def _begin(problem: BilevelProblem, optimizer: Optimizer, snapshot: OptimizerSnapshot) -> _Point:
    """Return the point of the snapshot."""
    assert snapshot.params, "the first step since the last meta step was prepared with is_first"
    params, states = {}, {}
    for name, param in problem.params.items():
        params[name] = snapshot.params.get(id(param), param).detach().requires_grad_()
        later = {key: value for key, value in optimizer.state.get(param, {}).items() if isinstance(value, Tensor)}
        states[name] = snapshot.states.get(id(param)) or begin_state(type(optimizer), later)
    return _Point(params, states)


def _differentiate_base(problem: BilevelProblem, params: _Named, step: BaseStep) -> _Named:
    """Return the gradient of the base loss as the optimizer saw it, with a graph; none for what it does not reach."""
    joined = _join(problem.exchange, list(params.values()))
    used = dict(zip(params, joined, strict=True))
    losses = []
    for piece in step.pieces:
        buffers = {name: buffer.clone() for name, buffer in piece.buffers.items()}
        terms = problem.evaluate(used, buffers, piece.batch)
        coefficients = problem.exchange.shard(problem.weigh(piece.evidence))
        losses.append(mean_loss(coefficients, terms) * piece.batch.share)
    found = torch.autograd.grad(torch.stack(losses).sum(), joined, create_graph=True, allow_unused=True)
    totals = _total(problem.exchange, joined, found)
    gradients = {name: total for name, total in zip(params, totals, strict=True) if total is not None}
    values = list(gradients.values())
    if step.clipping is not None:
        values = clip_vector(values, step.clipping.limit)
    return dict(zip(gradients, values, strict=True))


def _descend(problem: BilevelProblem, optimizer: Optimizer, step: BaseStep, point: _Point, gradients: _Named) -> _Point:
    """Return the point after the step; parameters without a gradient stay as they are."""
    names, settings = [], []
    for group, used in zip(optimizer.param_groups, step.settings, strict=True):
        members = [problem.names[id(p)] for p in group["params"] if id(p) in problem.names]
        stepped = [name for name in members if name in gradients]
        names += stepped
        settings += [_without_params(used)] * len(stepped)
    after, later = step_optimizer(
        type(optimizer),
        [point.params[name] for name in names],
        [gradients[name] for name in names],
        [point.states[name] for name in names],
        settings,
    )
    params = {**point.params, **dict(zip(names, after, strict=True))}
    return _Point(params, {**point.states, **dict(zip(names, later, strict=True))})


def _without_params(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "params"}


class _Join(torch.autograd.Function):
    """The identity, whose incoming gradients are summed over the processes: each had evaluated its part of a batch."""

    @staticmethod
    def forward(ctx: Any, exchange: AbstractExchange, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange = exchange
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        summed = [gradient.clone() for gradient in gradients]
        ctx.exchange.add_up(summed)
        return None, *summed


def _join(exchange: AbstractExchange, tensors: Vector) -> Vector:
    return tensors if exchange.size == 1 else list(_Join.apply(exchange, *tensors))  # type: ignore[no-untyped-call]


def _total(exchange: AbstractExchange, params: Vector, found: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """Return the gradients summed over the processes, None where no process has one; each keeps its part's graph."""
    if exchange.size == 1:
        return found
    is_found = torch.tensor([gradient is not None for gradient in found]).to(params[0])
    exchange.add_up([is_found])
    own = [
        torch.zeros_like(param) if gradient is None else gradient for param, gradient in zip(params, found, strict=True)
    ]
    sums = [gradient.detach().clone() for gradient in own]
    exchange.add_up(sums)
    return [
        gradient + (total - gradient.detach()) if is_used else None
        for gradient, total, is_used in zip(own, sums, is_found.tolist(), strict=True)
    ]
