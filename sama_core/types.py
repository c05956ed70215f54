"""The words shared by every floor: examples, batches, reports and outcomes.

Shape letters used across ``sama_core``: N examples in a data set, B in a batch, C classes, F features, P parameters.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import torch
from torch import Tensor

from sama_core.errors import ExamplesError

Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""What a network takes: one tensor, several in order, or several by name. The first dimension counts examples."""

TensorFunction: TypeAlias = Callable[[Tensor], Tensor]

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None


class AbstractExamples(ABC):
    """A data set by row number: the given labels in memory, the inputs fetched a batch at a time.

    Implementations set ``labels`` (int64, shape (N,), each in 0..C-1, on the CPU) and ``num_classes`` (C >= 2). Rows
    without a label do not belong here: leave them out and keep the map of row numbers outside.

    Attributes:
        sources: int64 (N,), each 0..S-1, on the CPU: where each example came from, where that is known.
        votes: int64 (N, V), on the CPU: what V labelling functions said of each example, -1 where one abstained.
        given_labels: of trusted examples, int64 (N,): the label that the data delivered for it beside the trusted one
            in ``labels``, -1 where there was none.
        unlabelled: of training examples, U more examples of the same kind without labels (their ``labels`` stand for
            nothing): a method that suggests labels may be asked for theirs.
        train_rows: of trusted examples, int64 (N,): its row number among the training examples, -1 where it is none
            of them.
        groups: int64 (N,): examples of the same content share a number, here and among the trusted, the training and
            the unlabelled ones; -1 where there is no other. What is said of one must not rest on the trusted label of
            another. None where all that is known is ``train_rows``.
    """

    labels: Tensor
    num_classes: int
    sources: Tensor | None = None
    votes: Tensor | None = None
    given_labels: Tensor | None = None
    train_rows: Tensor | None = None
    groups: Tensor | None = None
    unlabelled: "AbstractExamples | None" = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples N."""

    @abstractmethod
    def fetch(self, rows: Tensor) -> Inputs:
        """Return the inputs of ``rows`` (int64, shape (B,), CPU), in that order; a pure function of ``rows``."""


class TensorExamples(AbstractExamples):
    """Examples whose inputs already lie in memory as tensors.

    Shapes: every tensor of ``inputs`` is (N, ...); ``labels`` is (N,).

    Args:
        inputs: one tensor, a tuple or a dict of tensors, first dimension N.
        labels: int64 class numbers.
        num_classes: C; by default the largest label plus one.
        sources: where each example came from, 0..S-1; None where that is not known.

    Raises:
        ExamplesError: the lengths differ, or a label lies outside 0..C-1.

    Example:
        >>> examples = TensorExamples(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> len(examples), examples.num_classes, examples.fetch(torch.tensor([2, 0])).shape
        (3, 2, torch.Size([2, 2]))
    """

    def __init__(
        self, inputs: Inputs, labels: Tensor, num_classes: int | None = None, sources: Tensor | None = None
    ) -> None:
        self.inputs, self.sources = inputs, sources
        self.labels = labels.to(torch.int64).cpu()
        largest = int(self.labels.max()) if len(self.labels) else -1
        self.num_classes = largest + 1 if num_classes is None else num_classes
        for tensor in list_tensors(inputs):
            if tensor.shape[0] != len(self.labels):
                raise ExamplesError(
                    f"inputs: {tensor.shape[0]} rows but {len(self.labels)} labels; the two must be equal"
                )
        check_examples(self, "examples")

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return the inputs of these rows."""
        return map_inputs(self.inputs, lambda tensor: tensor[rows.to(tensor.device)])


class SolveCode(StrEnum):
    """How a solve stands."""

    RUNNING = "running"
    FINISHED = "finished"
    NON_FINITE = "non-finite"


@dataclass(frozen=True)
class SolveStatus:
    """The outcome of a solve so far: a value, never an exception.

    Attributes:
        code: running, finished or non-finite.
        step: steps done; for ``non-finite`` the 1-based step whose loss was the first that was not finite.
        message: one sentence for people.
    """

    code: SolveCode
    step: int
    message: str

    @property
    def is_failure(self) -> bool:
        """True when the solve cannot go on."""
        return self.code is SolveCode.NON_FINITE


@dataclass(frozen=True)
class StepReport:
    """What one step did. Tensors are scalars on the device: reading one (``float(...)``) waits for the device.

    Attributes:
        step: base steps done, counting this one (1..num_steps).
        num_steps: base steps of the whole solve.
        base_loss: weighted base loss of this batch.
        meta_loss: meta loss after the step; None when no meta step was due.
        hypergradient_norm: Euclidean norm of the hypergradient; None likewise.
        weights: (B,) of the examples of this base batch.
        status: how the solve stands. Non-finite losses are looked for every few steps, so the status may come a
            few steps after the loss it names.
    """

    step: int
    num_steps: int
    base_loss: Tensor
    meta_loss: Tensor | None
    hypergradient_norm: Tensor | None
    weights: Tensor
    status: SolveStatus

    @property
    def num_examples(self) -> int:
        """Examples in this base batch."""
        return len(self.weights)

    @property
    def effective_sample_size(self) -> Tensor:
        """(sum w)^2 / sum w^2 over the batch, in examples: 1..num_examples."""
        return self.weights.sum().square() / self.weights.square().sum().clamp_min(1e-12)


def list_tensors(inputs: Inputs) -> list[Tensor]:
    """Return the tensors of some inputs in a fixed order.

    Example:
        >>> [len(t) for t in list_tensors((torch.zeros(2), torch.zeros(2)))]
        [2, 2]
    """
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def map_inputs(inputs: Inputs, function: TensorFunction) -> Inputs:
    """Apply ``function`` to each tensor of some inputs, keeping their form.

    Example:
        >>> map_inputs({"x": torch.ones(1)}, lambda t: t * 2)
        {'x': tensor([2.])}
    """
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, dict):
        return {name: function(tensor) for name, tensor in inputs.items()}
    return tuple(function(tensor) for tensor in inputs)


def check_examples(examples: AbstractExamples, name: str) -> None:
    """Check labels and class count of a data set at the public door.

    Raises:
        ExamplesError: no row, fewer than two classes, a wrong dtype or length, or a label or vote outside 0..C-1.

    Example:
        >>> check_examples(TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1])), "train")
    """
    labels = examples.labels
    if len(examples) == 0:
        raise ExamplesError(f"{name}: 0 examples; wanted at least 1")
    if labels.dtype != torch.int64 or labels.shape != (len(examples),):
        raise ExamplesError(
            f"{name}.labels: dtype {labels.dtype}, shape {tuple(labels.shape)}; "
            f"wanted int64 of shape ({len(examples)},)"
        )
    if examples.num_classes < 2:
        raise ExamplesError(f"{name}.num_classes: {examples.num_classes}; wanted at least 2 classes")
    bad = torch.nonzero((labels < 0) | (labels >= examples.num_classes)).flatten()
    if len(bad):
        row = int(bad[0])
        raise ExamplesError(
            f"{name}.labels: row {row} has label {int(labels[row])}; wanted 0..{examples.num_classes - 1}"
        )
    votes = examples.votes
    if votes is None:
        return
    if votes.dtype != torch.int64 or votes.dim() != 2 or len(votes) != len(examples) or votes.shape[1] == 0:
        seen = f"dtype {votes.dtype}, shape {tuple(votes.shape)}"
        raise ExamplesError(f"{name}.votes: {seen}; wanted int64 of shape ({len(examples)}, number of functions)")
    if int(votes.min()) < -1 or int(votes.max()) >= examples.num_classes:
        seen = f"{int(votes.min())}..{int(votes.max())}"
        raise ExamplesError(f"{name}.votes: {seen}; wanted -1, an abstention, to {examples.num_classes - 1}")


def check_meta(train: AbstractExamples, meta: AbstractExamples) -> None:
    """Refuse a meta set that does not fit the training examples.

    Raises:
        ExamplesError: the meta set is empty, badly formed, or has another number of classes.

    Example:
        >>> examples = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))
        >>> check_meta(examples, examples)
    """
    check_examples(meta, "meta")
    if meta.num_classes != train.num_classes:
        raise ExamplesError(
            f"meta.num_classes: {meta.num_classes}; wanted {train.num_classes}, as the training examples have"
        )
