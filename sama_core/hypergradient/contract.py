"""The contract of a hypergradient method."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.problem import Batch, BilevelProblem
from sama_core.tensors import Vector, clone_buffers


@dataclass(frozen=True)
class Snapshot:
    """What a method remembers of the base level before the base step.

    Attributes:
        optimizer: parameters (and, where asked for, optimizer state) before the step.
        buffers: the network's buffers before the step's forward pass.
    """

    optimizer: OptimizerSnapshot
    buffers: dict[str, Tensor]


@dataclass(frozen=True)
class BaseStep:
    """A base step just done: its gradient still lies in ``.grad`` and the optimizer has stepped.

    Attributes:
        snapshot: taken before the step.
        batch: the batch of the step, with its seed.
        features: (B, F) what the weights were computed from; constants.
    """

    snapshot: Snapshot
    batch: Batch
    features: Tensor


@dataclass(frozen=True)
class HypergradientEstimate:
    """The result of a meta step's estimate.

    Attributes:
        hypergradient: dL_meta/dlambda, aligned with ``problem.learned.parameters()``.
        meta_loss: mean loss of the meta batch at the parameters after the base step.
    """

    hypergradient: Vector
    meta_loss: Tensor


class AbstractHypergradient(ABC):
    """State in, state out: neither method edits the network, the optimizer, or what is learned."""

    copies_optimizer_state: bool = False

    def base_context(self) -> AbstractContextManager[None]:
        """Return the context in which the base step's forward pass must run where a meta step follows it."""
        return nullcontext()

    def prepare(self, problem: BilevelProblem, optimizer: Optimizer) -> Snapshot:
        """Remember what ``estimate`` will need, before the base step's forward pass."""
        return Snapshot(
            take_snapshot(optimizer, with_states=self.copies_optimizer_state), clone_buffers(problem.network)
        )

    @abstractmethod
    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, base: BaseStep, meta: Batch
    ) -> HypergradientEstimate:
        """Return the hypergradient of the meta batch's mean loss through the base step ``base``."""
