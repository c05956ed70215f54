"""The contract of a hypergradient method, and what a base step leaves for it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from sama_core.adaptation.clipping import Clipping
from sama_core.adaptation.contract import OptimizerSnapshot
from sama_core.adaptation.portion import own_memory
from sama_core.batch import Batch
from sama_core.evidence import Evidence
from sama_core.problem import BilevelProblem
from sama_core.tensors import Vector, clone_buffers


class AbstractRecording(ABC):  # noqa: B024 - what it holds is its route's own affair
    """What a route keeps of one forward and backward pass.

    Attributes:
        scale: what the loss was multiplied by before its backward pass.
    """

    scale: float = 1.0


@dataclass(frozen=True)
class Piece:
    """One forward and backward pass of a base step; a step that accumulates gradients has several.

    Attributes:
        batch: its examples, with the seed of the pass.
        evidence: what the coefficients were computed from, on the examples of all processes; constants.
        losses: (B,) or (B, K), the loss terms as the pass gave them, without a graph; None where they were not kept.
        buffers: the network's buffers before the forward pass, by name.
        num_examples: examples of the whole base step, over which its loss is averaged.
        recording: what the route asked to keep of the pass; None for most.
        coefficients: of all processes, with their graph to lambda, where the pass has kept it.
    """

    batch: Batch
    evidence: Evidence
    losses: Tensor | None
    buffers: Mapping[str, Tensor]
    num_examples: int
    recording: AbstractRecording | None = None
    coefficients: Tensor | None = None


@dataclass(frozen=True)
class BaseStep:
    """A base step just done. Its gradient, as the optimizer saw it, lies in ``.grad`` until the next one.

    Attributes:
        pieces: the passes it was made of, in order.
        settings: of each parameter group, as they were during the step.
        snapshot: what the method asked to remember of the optimizer before the step.
        clipping: how the gradient was clipped; None where it never is.
    """

    pieces: Sequence[Piece]
    settings: Sequence[Mapping[str, Any]]
    snapshot: OptimizerSnapshot
    clipping: Clipping | None = None


@dataclass(frozen=True)
class HypergradientEstimate:
    """The result of a meta step's estimate.

    Attributes:
        hypergradient: dL_meta/dlambda, aligned with ``problem.learned.parameters()``.
        meta_loss: of the meta batch at the parameters after the base step.
        direction: v by parameter name, where the method was asked to keep it.
    """

    hypergradient: Vector
    meta_loss: Tensor
    direction: Mapping[str, Tensor] | None = None


class AbstractHypergradient(ABC):
    """State in, state out: no method edits the network, the optimizer, or what is learned.

    Around each base step: ``prepare`` before it, ``record`` around each of its passes, and once per meta step
    ``estimate`` over the base steps since the last one, the oldest first.

    Attributes:
        uses_every_step: ``estimate`` wants all base steps since the last meta step; otherwise only the last one.
    """

    uses_every_step: bool = False

    @abstractmethod
    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:
        """Remember what ``estimate`` will need of the optimizer, before a base step's first pass.

        Args:
            optimizer: the base optimizer.
            is_first: the step is the first since the last meta step.
            is_last: a meta step follows this base step.
        """

    def record(self, problem: BilevelProblem) -> AbstractContextManager[AbstractRecording | None]:  # noqa: ARG002
        """Return the context in which a pass of a base step must run where a meta step follows it."""
        return nullcontext()

    @abstractmethod
    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the hypergradient of the meta loss through the base steps since the last meta step."""


def differentiate_meta(problem: BilevelProblem, params: Sequence[Tensor], meta: Batch) -> tuple[Tensor, Vector]:
    """Return the meta loss at the network's parameters as they are, and its gradient with respect to ``params``.

    Example:
        >>> from sama_core.meta.example_logits import ExampleLogits
        >>> network = torch.nn.Linear(1, 2, bias=False)
        >>> _ = torch.nn.init.zeros_(network.weight)
        >>> problem = BilevelProblem(network, ExampleLogits(1), torch.device("cpu"))
        >>> meta = Batch(torch.tensor([0]), torch.ones(1, 1), torch.tensor([1]), seed=0)
        >>> loss, gradient = differentiate_meta(problem, [network.weight], meta)
        >>> loss, gradient[0].flatten()
        (tensor(0.6931), tensor([ 0.5000, -0.5000]))
    """
    with torch.enable_grad():
        meta_loss = problem.evaluate_meta(problem.params, clone_buffers(problem.network), meta) * meta.share
        joint = meta_loss.detach().clone()
        gradient = problem.exchange.differentiate([meta_loss], params, along=[joint])
    return joint, own_memory(gradient)


def pull_back(problem: BilevelProblem, pieces: Sequence[Piece], derivatives: Sequence[Tensor]) -> Vector:
    """Return -(1/B) sum_ik s_ik dc_ik/dlambda, aligned with the parameters of what is learned.

    Shapes: one tensor of ``derivatives`` for each piece, shaped as its losses.

    Args:
        problem: gives the coefficients c.
        pieces: give the evidence.
        derivatives: s, the directional derivative of each loss term.

    Example:
        >>> from sama_core.meta.example_logits import ExampleLogits
        >>> problem = BilevelProblem(torch.nn.Linear(1, 2), ExampleLogits(2), torch.device("cpu"))
        >>> rows, none = torch.tensor([1]), torch.zeros(1, 0)
        >>> batch = Batch(rows, torch.ones(1, 1), rows, seed=0)
        >>> piece = Piece(batch, Evidence(rows, rows, none, none), None, {}, num_examples=1)
        >>> pull_back(problem, [piece], [torch.tensor([3.0])])  # the weight is 1, its derivative 1/2
        [tensor([ 0.0000, -1.5000])]
    """
    coefficients, outgoing = [], []
    with torch.enable_grad():
        for piece, derivative in zip(pieces, derivatives, strict=True):
            joint = problem.weigh(piece.evidence) if piece.coefficients is None else piece.coefficients
            weights = problem.exchange.shard(joint)
            coefficients.append(weights)
            outgoing.append((-derivative / piece.num_examples).to(weights.dtype))
        learned = list(problem.learned.parameters())
        return problem.exchange.differentiate(coefficients, learned, outgoing=outgoing)
