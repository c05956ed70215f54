"""Several plain trainings, one after another, and what they predict: the common part of the methods that need it.

Shape suffixes: N training examples, M trusted ones, C classes.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sama_core.checkpoint import add_prefix, check_header, restore_tensors, take_prefix
from sama_core.decisions import Decisions
from sama_core.method import AbstractMethod, check_finished
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.training import PlainTrainer, TrainingState, predict
from sama_core.types import JSON, AbstractExamples, SolveCode, SolveStatus, StepReport, check_examples


@dataclass(frozen=True)
class Lesson:
    """What one training learns from: some rows of some examples."""

    examples: AbstractExamples
    rows: Tensor | None = None


@dataclass
class TrainingsState:
    """Trainings between two steps.

    Attributes:
        network: where every training starts; never edited.
        train: the curated examples.
        meta: the trusted examples.
        device: where to compute.
        lengths: steps of each training; those of trainings that may follow the planned ones come when these are done.
        memory: what the finished trainings leave, by name, on the CPU.
        num_planned: trainings that are done in any case.
        number: the training that runs; ``len(lengths)`` after the last.
        training: its state; None after the last.
    """

    network: nn.Module
    train: AbstractExamples
    meta: AbstractExamples | None
    device: torch.device
    lengths: list[int]
    memory: dict[str, Tensor]
    num_planned: int
    number: int = 0
    training: TrainingState | None = None

    @property
    def num_done(self) -> int:
        """Steps done, those of the finished trainings counted."""
        return sum(self.lengths[: self.number]) + (0 if self.training is None else self.training.base.step)

    @property
    def num_steps(self) -> int:
        """Steps of all the trainings."""
        return sum(self.lengths)


class AbstractTrainings(AbstractMethod[TrainingsState]):
    """Trains several times from the same start; each training may learn from what those before it have left.

    What a training learns from is a function of the data, the options and the memory alone, so that a restored state
    starts the interrupted training again and puts its progress back.

    Args:
        options: optimizer, schedule, batch size, epochs and seed; the same for every training.
    """

    def __init__(self, options: CurationOptions) -> None:
        self.options = options
        self._trainer = PlainTrainer(options)

    @abstractmethod
    def plan(self, train: AbstractExamples, meta: AbstractExamples | None) -> list[int]:
        """Return the steps of each training, at least one training, after checking that these data will do."""

    def go_on(self, state: TrainingsState) -> list[int]:  # noqa: ARG002 - for those that override it
        """Return the steps of the trainings that follow the planned ones, by the memory that these left; none here."""
        return []

    @abstractmethod
    def allocate(self, train: AbstractExamples, meta: AbstractExamples | None) -> dict[str, Tensor]:
        """Return the memory before the first training."""

    @abstractmethod
    def choose(self, state: TrainingsState) -> Lesson:
        """Return what training ``state.number`` learns from."""

    @abstractmethod
    def conclude(self, state: TrainingsState, network: nn.Module) -> None:
        """Write into ``state.memory`` what the network of training ``state.number``, now finished, predicts."""

    @abstractmethod
    def decide(self, state: TrainingsState) -> Decisions:
        """Return the decisions of the memory after the last training."""

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None = None,
        device: torch.device | str = "cpu",
    ) -> TrainingsState:
        """Return the state before the first step of the first training."""
        check_examples(train, "train")
        lengths = self.plan(train, meta)
        memory = self.allocate(train, meta)
        state = TrainingsState(network, train, meta, torch.device(device), lengths, memory, len(lengths))
        self._begin(state)
        return state

    def step(self, state: TrainingsState) -> StepReport:
        """Do one step; after the last of a training also its predictions, and the beginning of the next."""
        training = state.training
        assert training is not None, "step is not called once the solve is done"
        report = self._trainer.step(training)
        done, num_steps = state.num_done, state.num_steps
        if training.base.status.code is SolveCode.FINISHED:
            self.conclude(state, training.network)
            state.number += 1
            self._begin(state)
        return replace(report, step=done, num_steps=num_steps, status=self.find_status(state))

    def is_done(self, state: TrainingsState) -> bool:
        """Return True after the last step or a failure."""
        return self.find_status(state).code is not SolveCode.RUNNING

    def finish(self, state: TrainingsState) -> Decisions:
        """Return the decisions."""
        check_finished(self.find_status(state), state.num_steps)
        decisions = self.decide(state)
        counts: dict[str, JSON] = {"num_base_steps": state.num_done, "num_trainings": len(state.lengths)}
        return replace(decisions, facts={**counts, **decisions.facts})

    def export(self, state: TrainingsState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the memory, and the training that runs."""
        tensors = {"number": torch.tensor(state.number), **add_prefix("memory", state.memory)}
        if state.training is not None:
            tensors.update(add_prefix("training", state.training.base.export()))
        return tensors, self.describe(state)

    def restore(self, state: TrainingsState, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state back."""
        check_header(values, self.describe(state))
        number = torch.zeros((), dtype=torch.int64)
        restore_tensors({"number": number}, tensors)
        restore_tensors(state.memory, tensors, "memory")
        state.number = int(number)
        self._begin(state)
        if state.training is not None:
            state.training.base.restore(take_prefix("training", tensors))

    def count_steps(self, num_rows: int) -> int:
        """Return the steps of a whole training on this many rows."""
        return -(-num_rows // self.options.batch_size) * self.options.epochs

    def _begin(self, state: TrainingsState) -> None:
        """Start training ``state.number``, or none after the last."""
        state.training = None
        if state.num_planned <= state.number and state.num_planned == len(state.lengths):
            state.lengths = [*state.lengths, *self.go_on(state)]
        if state.number < len(state.lengths):
            lesson, length = self.choose(state), state.lengths[state.number]
            state.training = self._trainer.init(
                state.network, lesson.examples, state.device, rows=lesson.rows, num_steps=length
            )

    def find_status(self, state: TrainingsState) -> SolveStatus:
        """Return how the trainings stand, taken together."""
        done = state.num_done
        if state.training is None:
            return SolveStatus(SolveCode.FINISHED, done, f"finished after {done} steps")
        status = state.training.base.status
        if status.is_failure:
            step = sum(state.lengths[: state.number]) + status.step
            place = f"training {state.number + 1} of {len(state.lengths)}"
            return SolveStatus(status.code, step, f"{place}: {status.message}")
        return SolveStatus(SolveCode.RUNNING, done, "running")

    def describe(self, state: TrainingsState) -> dict[str, JSON]:
        """Return what a checkpoint of this state belongs to."""
        num_steps = sum(state.lengths[: state.num_planned])
        origin = describe_origin(self.name, self.options, state.train, num_steps)
        if state.meta is None:
            return origin
        return {**origin, "meta": describe_origin(self.name, self.options, state.meta, num_steps)}


def predict_probabilities(
    network: nn.Module, examples: AbstractExamples, device: torch.device, rows: Tensor | None = None
) -> Tensor:
    """Return the probabilities of each class, float32 on the CPU: (N, C), or (len(rows), C) in the order of ``rows``.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.zeros(1, 2), torch.tensor([0]), num_classes=2)
        >>> predict_probabilities(nn.Identity(), examples, torch.device("cpu"))
        tensor([[0.5000, 0.5000]])
    """
    if rows is not None and len(rows) == 0:
        return torch.zeros(0, examples.num_classes)
    return predict(network, examples, rows=rows, device=device).softmax(1)
