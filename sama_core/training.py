"""Plain training with fixed weights on a subset of rows: the arms of an evaluation.

Shape suffixes: N examples, B of a batch, C classes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sama_core.base_level import BaseLevel
from sama_core.batch import Batch
from sama_core.checkpoint import check_header
from sama_core.errors import ExamplesError, OptionsError
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.randomness import isolated_randomness
from sama_core.tensors import move_inputs, prefers_channels_last
from sama_core.types import JSON, AbstractExamples, SolveStatus, StepReport, check_examples

Observer = Callable[[StepReport], bool | None]
Watch = Callable[[Batch, Tensor], None]

_ROUNDING = 1e-3


@dataclass
class TrainingState:
    """A plain training between two steps.

    Attributes:
        base: network, optimizer and progress.
        weights: (N,) loss multiplier of every example, on the device; those of the rows in use have mean 1.
        targets: (N, C) soft labels on the device, in place of the given ones; None where these are trained on.
    """

    base: BaseLevel
    weights: Tensor
    targets: Tensor | None = None

    @property
    def network(self) -> nn.Module:
        """The network being trained."""
        return self.base.network


class PlainTrainer:
    """Plain training in steps: ``init``, then ``step`` until ``is_done``; the network is ``state.network``.

    Arms trained with the same ``num_steps`` differ in their data alone.

    Args:
        options: optimizer, schedule, batch size, epochs and seed; what concerns the meta level is not used.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([0, 1]))
        >>> trainer = PlainTrainer(CurationOptions(epochs=2, batch_size=2))
        >>> state = trainer.init(nn.Linear(2, 2), examples)
        >>> while not trainer.is_done(state):
        ...     report = trainer.step(state)
        >>> report.step, report.status.code.value
        (2, 'finished')
    """

    def __init__(self, options: CurationOptions) -> None:
        self.options = options

    def init(
        self,
        network: nn.Module,
        examples: AbstractExamples,
        device: torch.device | str = "cpu",
        *,
        rows: Tensor | None = None,
        weights: Tensor | None = None,
        targets: Tensor | None = None,
        num_steps: int | None = None,
    ) -> TrainingState:
        """Return the state before the first step, on a copy of ``network``.

        Args:
            network: starting point; not edited.
            examples: all examples, N.
            device: where to compute.
            rows: row numbers to train on; None takes all.
            weights: (N,) loss multipliers, 0 or more, for **all** examples; scaled to mean 1 over ``rows``. A row of
                weight 0 is in no batch, where it would take the place of one that teaches something.
            targets: (N, C) soft labels, the probability of each class, for **all** examples: the loss is the
                cross-entropy with them. None trains on the given labels.
            num_steps: steps in all; None takes ``options.epochs`` passes over the rows that count.

        Raises:
            ExamplesError: bad labels, rows outside 0..N-1, or no rows.
            OptionsError: weights of another length, negative, not finite, or all 0; targets of another shape, or no
                probabilities; fewer than 1 step.
        """
        check_examples(examples, "examples")
        if num_steps is not None and num_steps < 1:
            raise OptionsError(f"num_steps: {num_steps}; wanted at least 1")
        place = torch.device(device)
        if rows is not None and len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(examples):
            seen = f"{int(rows.min())}..{int(rows.max())}"
            raise ExamplesError(f"rows: {seen}; wanted row numbers from 0 to {len(examples) - 1}")
        chosen = torch.arange(len(examples)) if rows is None else rows.to(torch.int64).cpu()
        if weights is not None:
            check_weights(weights, chosen, len(examples))
            chosen = chosen[weights.detach().cpu()[chosen] > 0]
        if targets is not None:
            check_targets(targets, chosen, examples)
        base = BaseLevel(network, examples, self.options, place, rows=chosen, num_steps=num_steps)
        soft_NC = None if targets is None else targets.detach().to(place)
        return TrainingState(base, scale_weights(weights, base.rows, len(examples)).to(place), soft_NC)

    def step(self, state: TrainingState, watch: Watch | None = None) -> StepReport:
        """Do one step; ``watch`` sees the batch and its logits (B, C). The global random generators stay untouched."""
        base = state.base
        with isolated_randomness(base.device):
            batch = base.draw()
            weights_B = state.weights[batch.rows]
            targets_BC = None if state.targets is None else state.targets[batch.rows]
            loss, logits_BC = base.descend(batch, weights_B, targets_BC)
            if watch is not None:
                watch(batch, logits_BC)
        return base.report(loss, weights_B)

    def is_done(self, state: TrainingState) -> bool:
        """Return True after the last step or a failure."""
        return state.base.is_done

    def export(self, state: TrainingState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the whole state as copies, and what it belongs to."""
        return {**state.base.export(), "weights": state.weights.clone()}, self._describe(state)

    def restore(self, state: TrainingState, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state back into one that ``init`` made from the same arguments.

        Raises:
            CheckpointError: the checkpoint belongs to something else.
        """
        check_header(values, self._describe(state))
        state.base.restore(tensors)

    def _describe(self, state: TrainingState) -> dict[str, JSON]:
        base = state.base
        origin = describe_origin("training", self.options, base.examples, base.course.num_steps)
        return {**origin, "num_rows": len(base.rows), "is_soft": state.targets is not None}


def check_targets(targets: Tensor, rows: Tensor, examples: AbstractExamples) -> None:
    """Refuse soft labels that no training on ``rows`` can use.

    Raises:
        OptionsError: another shape than (N, C), or over ``rows`` no probabilities that add up to 1.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([0, 1]))
        >>> check_targets(torch.tensor([[0.9, 0.1], [0.5, 0.5]]), torch.tensor([0, 1]), examples)
    """
    wanted = (len(examples), examples.num_classes)
    if targets.shape != wanted:
        raise OptionsError(f"targets: shape {tuple(targets.shape)}; wanted {wanted}")
    used = targets.detach().cpu().double()[rows]
    if not bool((used >= 0).all()) or bool(((used.sum(1) - 1.0).abs() > _ROUNDING).any()):
        raise OptionsError("targets: not the probabilities of each class; wanted numbers of 0 or more that add up to 1")


def check_weights(weights: Tensor, rows: Tensor, num_examples: int) -> None:
    """Refuse weights that no training on ``rows`` can use.

    Raises:
        OptionsError: another length than ``num_examples``, or over ``rows`` a negative or non-finite weight, or
            nothing but zeros.

    Example:
        >>> check_weights(torch.tensor([1.0, 0.0]), torch.tensor([0, 1]), 2)
    """
    if weights.shape != (num_examples,):
        raise OptionsError(f"weights: shape {tuple(weights.shape)}; wanted ({num_examples},)")
    used = weights.detach().cpu().double()[rows]
    if len(used) and (not bool(torch.isfinite(used).all()) or bool((used < 0).any()) or float(used.sum()) == 0):
        raise OptionsError("weights: negative, not finite or all 0; wanted finite numbers of 0 or more")


def scale_weights(weights: Tensor | None, rows: Tensor, num_examples: int) -> Tensor:
    """Return float32 weights (N,) with mean 1 over ``rows``; None gives 1 everywhere.

    Example:
        >>> scale_weights(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([0, 1]), 3)
        tensor([0.5000, 1.5000, 4.5000])
    """
    if weights is None:
        return torch.ones(num_examples)
    weights_N = weights.detach().cpu().double()
    return (weights_N / weights_N[rows].mean()).float()


def fit(
    network: nn.Module,
    examples: AbstractExamples,
    options: CurationOptions,
    *,
    rows: Tensor | None = None,
    weights: Tensor | None = None,
    targets: Tensor | None = None,
    num_steps: int | None = None,
    device: torch.device | str = "cpu",
    observer: Observer | None = None,
) -> tuple[nn.Module, SolveStatus]:
    """Train a copy of ``network`` to the end.

    Args:
        network: starting point; not edited.
        examples: all examples.
        options: as for ``PlainTrainer``.
        rows: as for ``PlainTrainer.init``; likewise ``weights``, ``targets`` and ``num_steps``.
        weights: see ``rows``.
        targets: see ``rows``.
        num_steps: see ``rows``.
        device: where to compute.
        observer: sees the report of each step; returning False ends the training early.

    Returns:
        The trained network, in evaluation mode, and how the training ended: a non-finite loss is a status.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([0, 1]))
        >>> options = CurationOptions(epochs=50, batch_size=2, lr=0.1)
        >>> network, status = fit(nn.Linear(2, 2), examples, options)
        >>> accuracy(predict(network, examples), examples.labels), status.message
        (1.0, 'finished after 50 steps')
    """
    trainer = PlainTrainer(options)
    state = trainer.init(network, examples, device, rows=rows, weights=weights, targets=targets, num_steps=num_steps)
    while not trainer.is_done(state):
        report = trainer.step(state)
        if observer is not None and observer(report) is False:
            break
    return state.network.eval(), state.base.status


@torch.no_grad()
def predict(
    network: nn.Module,
    examples: AbstractExamples,
    *,
    rows: Tensor | None = None,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the logits of the network in evaluation mode; its modes are put back after.

    Args:
        network: on ``device`` already.
        examples: all examples.
        rows: row numbers to predict; None takes all N.
        batch_size: examples at a time.
        device: where to compute.

    Returns:
        Float32 on the CPU, (N, C), or (len(rows), C), in the order of ``rows``.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([0, 1]))
        >>> predict(nn.Identity(), examples)
        tensor([[1., 0.],
                [0., 1.]])
    """
    chosen = torch.arange(len(examples)) if rows is None else rows.to(torch.int64).cpu()
    place, channels_last = torch.device(device), prefers_channels_last(network)
    with evaluation_mode(network):
        parts = [
            network(move_inputs(examples.fetch(part), place, channels_last=channels_last))
            for part in torch.split(chosen, batch_size)
        ]
    return torch.cat(parts).float().cpu()


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for the block; the mode of each of its parts comes back at the end.

    Example:
        >>> network = nn.Dropout()
        >>> with evaluation_mode(network):
        ...     print(network.training)
        False
        >>> network.training
        True
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is their label.

    Shapes: logits (N, C), labels (N,).

    Example:
        >>> accuracy(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        0.5
    """
    return float((logits.argmax(1) == labels).float().mean())
