"""Plain training that keeps one running number per example: the common part of the dynamics scores.

Shape suffixes: N examples, B of a batch, C classes.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sama_core.checkpoint import add_prefix, check_header, restore_tensors
from sama_core.decisions import Decisions, make_decisions
from sama_core.method import AbstractMethod, check_finished
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.probabilities import RunningProbabilities
from sama_core.randomness import isolated_randomness
from sama_core.training import PlainTrainer, TrainingState
from sama_core.types import JSON, AbstractExamples, StepReport


@dataclass
class TrackedState:
    """A plain training and what it has shown of each example.

    Attributes:
        training: the training.
        probabilities: averaged over the epochs.
        sums: (N,) sum of the tracked number over the visits that count.
        visits: (N,) how many visits counted.
    """

    training: TrainingState
    probabilities: RunningProbabilities
    sums: Tensor
    visits: Tensor


class AbstractTrackedScore(AbstractMethod[TrackedState]):
    """Trains plainly on the given labels and averages one number per example; no meta set is used.

    Args:
        options: optimizer, schedule, batch size, epochs and seed.
    """

    def __init__(self, options: CurationOptions) -> None:
        self.options = options
        self._trainer = PlainTrainer(options)

    @abstractmethod
    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the number to track. Shapes: logits (B, C), labels (B,) -> (B,)."""

    @abstractmethod
    def counts_from(self, num_epochs: int) -> int:
        """Return the first epoch (0-based) whose visits count."""

    @abstractmethod
    def judge(self, averages: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (N,) and noise scores (N,) in [0, 1] of the averaged numbers (N,), in double precision."""

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
        return TrackedState(
            training,
            RunningProbabilities(num_examples, train.num_classes, place),
            torch.zeros(num_examples, device=place),
            torch.zeros(num_examples, device=place),
        )

    def step(self, state: TrackedState) -> StepReport:
        """Do one step of plain training and keep what it shows."""
        base = state.training.base
        with isolated_randomness(base.device):
            batch = base.draw()
            counts = base.step // base.plan.num_batches >= self.counts_from(self.options.epochs)
            weights_B = torch.ones(len(batch.labels), device=base.device)
            loss, shown_BC = base.descend(batch, weights_B)
            with torch.no_grad():
                state.probabilities.add(batch.rows, shown_BC.softmax(1))
                if counts:
                    measured_B = self.measure(shown_BC, batch.labels).to(state.sums.dtype)
                    state.sums.index_add_(0, batch.rows, measured_B)
                    state.visits.index_add_(0, batch.rows, torch.ones_like(measured_B))
        return base.report(loss, weights_B)

    def is_done(self, state: TrackedState) -> bool:
        """Return True after the last step or a failure."""
        return state.training.base.is_done

    def finish(self, state: TrackedState) -> Decisions:
        """Return the decisions of the averaged number; every weight is 1."""
        base = state.training.base
        check_finished(base.status, base.num_steps)
        averages_N = (state.sums.double() / state.visits.clamp_min(1.0)).cpu()
        scores_N, noise_N = self.judge(averages_N)
        probabilities_NC = state.probabilities.average().cpu()
        facts: dict[str, JSON] = {"num_base_steps": base.step}
        return make_decisions(self.name, probabilities_NC, scores=scores_N, noise_scores=noise_N, facts=facts)

    def export(self, state: TrackedState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return training and memory."""
        tensors = state.training.base.export()
        for prefix, group in self._memory(state).items():
            tensors.update(add_prefix(prefix, group))
        return tensors, self._describe(state)

    def restore(self, state: TrackedState, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state back."""
        check_header(values, self._describe(state))
        state.training.base.restore(tensors)
        for prefix, group in self._memory(state).items():
            restore_tensors(group, tensors, prefix)

    def _memory(self, state: TrackedState) -> dict[str, dict[str, Tensor]]:
        return {
            "probabilities": state.probabilities.export(),
            "tracked": {"sums": state.sums, "visits": state.visits},
        }

    def _describe(self, state: TrackedState) -> dict[str, JSON]:
        base = state.training.base
        return describe_origin(self.name, self.options, base.examples, base.num_steps)
