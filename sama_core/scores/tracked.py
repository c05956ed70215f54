"""One plain training that remembers what it shows of each example: the common part of the dynamics scores.

Shape suffixes: N examples, B of a batch, C classes.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from sama_core.batch import Batch
from sama_core.checkpoint import add_prefix, check_header, restore_tensors
from sama_core.decisions import Decisions, make_decisions
from sama_core.errors import NonFiniteError
from sama_core.losses import widen
from sama_core.method import AbstractMethod, check_finished
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.probabilities import RunningProbabilities
from sama_core.randomness import isolated_randomness
from sama_core.training import PlainTrainer, TrainingState
from sama_core.types import JSON, AbstractExamples, SolveCode, SolveStatus, StepReport

Memory = dict[str, Tensor]


@dataclass
class TrackedState:
    """A plain training and what it has shown of each example.

    Attributes:
        training: the training.
        probabilities: averaged over the epochs.
        memory: the score's own tensors by name, N rows each, on the device.
        facts: how the score is measured, where there is a choice.
    """

    training: TrainingState
    probabilities: RunningProbabilities
    memory: Memory
    facts: dict[str, JSON]


class AbstractTrackedScore(AbstractMethod[TrackedState]):
    """Trains plainly on the given labels and remembers each visit of an example; no meta set is used.

    Args:
        options: optimizer, schedule, batch size, epochs and seed.
    """

    def __init__(self, options: CurationOptions) -> None:
        self.options = options
        self._trainer = PlainTrainer(options)

    @abstractmethod
    def list_epochs(self, num_epochs: int) -> range:
        """Return the epochs (0-based) whose visits count; the training ends with the last of them."""

    @abstractmethod
    def allocate(self, num_examples: int, device: torch.device) -> Memory:
        """Return the empty memory."""

    @abstractmethod
    def remember(self, memory: Memory, rows: Tensor, logits: Tensor, labels: Tensor, visit: int) -> None:
        """Remember a visit of the examples ``rows``, distinct.

        Shapes: rows (B,), logits (B, C) before the step, labels (B,).

        Args:
            memory: edited.
            rows: row numbers.
            logits: of the base pass.
            labels: given labels.
            visit: how many visits that count each of them has had before (the same for all: one an epoch).
        """

    @abstractmethod
    def judge(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return scores (N,), and noise scores (N,) in [0, 1] that rise with hardness, both in double precision."""

    def look(self, state: TrackedState, batch: Batch) -> None:
        """Look at a batch that counts before its step is done; nothing unless a score says otherwise."""

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None = None,  # noqa: ARG002 - the contract's signature
        device: torch.device | str = "cpu",
    ) -> TrackedState:
        """Return the state before the first step."""
        training = self._trainer.init(network, train, device)
        place, num_examples = training.base.device, len(train)
        probabilities = RunningProbabilities(num_examples, train.num_classes, place)
        return TrackedState(training, probabilities, self.allocate(num_examples, place), {})

    def step(self, state: TrackedState) -> StepReport:
        """Do one step of plain training and keep what it shows."""
        base, counted = state.training.base, self.list_epochs(self.options.epochs)
        with isolated_randomness(base.device):
            batch, epoch = base.draw(), base.step // base.plan.num_batches
            if epoch in counted:
                self.look(state, batch)
            weights_B = torch.ones(len(batch.labels), device=base.device)
            loss, shown_BC = base.descend(batch, weights_B)
            with torch.no_grad():
                logits_BC = widen(shown_BC)
                state.probabilities.add(batch.rows, logits_BC.softmax(1))
                if epoch in counted:
                    self.remember(state.memory, batch.rows, logits_BC, batch.labels, epoch - counted.start)
        return replace(
            base.report(loss, weights_B), num_steps=self._count_steps(state), status=self._find_status(state)
        )

    def is_done(self, state: TrackedState) -> bool:
        """Return True after the last step or a failure."""
        return self._find_status(state).code is not SolveCode.RUNNING

    def finish(self, state: TrackedState) -> Decisions:
        """Return the decisions by what was remembered; every weight is 1.

        Raises:
            NonFiniteError: the loss stopped being finite, also where the last steps alone show it.
        """
        base = state.training.base
        check_finished(self._find_status(state), self._count_steps(state))
        scores_N, noise_N = self.judge({name: tensor.cpu() for name, tensor in state.memory.items()})
        if not bool(torch.isfinite(scores_N).all()):
            raise NonFiniteError(f"{self.name}: a score is not finite after step {base.step}", base.step)
        facts: dict[str, JSON] = {"num_base_steps": base.step, **state.facts}
        average_NC = state.probabilities.average().cpu()
        given_N = average_NC.gather(1, base.examples.labels.unsqueeze(1)).squeeze(1)
        decisions = make_decisions(self.name, average_NC, scores=scores_N, noise_scores=noise_N, facts=facts)
        evidence = {self.name: scores_N.numpy().astype(np.float32), "average_p_given": given_N.numpy()}
        return replace(decisions, evidence=evidence)

    def export(self, state: TrackedState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return training and memory."""
        tensors = state.training.base.export()
        for prefix, group in self._list_memory(state).items():
            tensors.update(add_prefix(prefix, group))
        return tensors, self._describe(state)

    def restore(self, state: TrackedState, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state back."""
        check_header(values, self._describe(state))
        state.training.base.restore(tensors)
        for prefix, group in self._list_memory(state).items():
            restore_tensors(group, tensors, prefix)

    def _count_steps(self, state: TrackedState) -> int:
        return self.list_epochs(self.options.epochs).stop * state.training.base.plan.num_batches

    def _find_status(self, state: TrackedState) -> SolveStatus:
        base = state.training.base
        if base.is_done or base.step < self._count_steps(state):
            return base.status
        return SolveStatus(SolveCode.FINISHED, base.step, f"finished after {base.step} steps")

    def _list_memory(self, state: TrackedState) -> dict[str, Memory]:
        return {"probabilities": state.probabilities.export(), "tracked": state.memory}

    def _describe(self, state: TrackedState) -> dict[str, JSON]:
        base = state.training.base
        return describe_origin(self.name, self.options, base.examples, base.course.num_steps)


class AbstractAveragedScore(AbstractTrackedScore):
    """Averages one number per example over the visits that count."""

    @abstractmethod
    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the number to average. Shapes: logits (B, C), labels (B,) -> (B,)."""

    @abstractmethod
    def judge_averages(self, averages: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and noise scores, as ``judge`` does, of the averaged numbers (N,) in double precision."""

    def allocate(self, num_examples: int, device: torch.device) -> Memory:
        """Return the sums of the number and the visits that they are over."""
        return {"sums": torch.zeros(num_examples, device=device), "visits": torch.zeros(num_examples, device=device)}

    def remember(
        self,
        memory: Memory,
        rows: Tensor,
        logits: Tensor,
        labels: Tensor,
        visit: int,  # noqa: ARG002 - the contract's signature
    ) -> None:
        """Add the number."""
        add_visit(memory, rows, self.measure(logits, labels))

    def judge(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Judge the averages."""
        return self.judge_averages(average_visits(memory))


def add_visit(memory: Memory, rows: Tensor, numbers: Tensor) -> None:
    """Add a number (B,) of each of ``rows`` (B,) to ``sums`` and one visit to ``visits``.

    Example:
        >>> memory = {"sums": torch.zeros(2), "visits": torch.zeros(2)}
        >>> add_visit(memory, torch.tensor([1]), torch.tensor([0.5]))
        >>> memory["sums"]
        tensor([0.0000, 0.5000])
    """
    numbers_B = numbers.to(memory["sums"].dtype)
    memory["sums"].index_add_(0, rows, numbers_B)
    memory["visits"].index_add_(0, rows, torch.ones_like(numbers_B))


def average_visits(memory: Memory) -> Tensor:
    """Return ``sums`` over ``visits`` in double precision (N,), 0 where there was no visit.

    Example:
        >>> average_visits({"sums": torch.tensor([1.0, 0.0]), "visits": torch.tensor([2.0, 0.0])})
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return memory["sums"].double() / memory["visits"].clamp_min(1.0)


def list_early_epochs(num_epochs: int, share: float) -> range:
    """Return the early epochs: a share of them all, at least one, the very first left out where there is another.

    In the first epoch an example's number depends mostly on how far the first steps had come when it was visited.

    Example:
        >>> list_early_epochs(20, 0.25), list_early_epochs(1, 0.25)
        (range(1, 6), range(0, 1))
    """
    first = min(1, num_epochs - 1)
    return range(first, min(num_epochs, first + max(1, math.ceil(share * num_epochs))))
