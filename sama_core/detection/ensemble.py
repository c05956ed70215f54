"""Small networks trained on the trusted examples alone, cross-fitted, at a fraction of one training's cost.

Shape suffixes: N training examples, M trusted ones, C classes.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from sama_core.decisions import Decisions
from sama_core.options import CurationOptions
from sama_core.scores.given import decide_by_probabilities
from sama_core.scores.trainings import AbstractTrainings, Lesson, TrainingsState, predict_probabilities
from sama_core.scores.trusted_rows import TrustedRows, read_trusted
from sama_core.types import AbstractExamples

NUM_FOLDS = 3
_LARGEST_BATCH = 32
_FEWEST_STEPS = 40
_LEAST = 1e-6


class TrustedEnsemble(AbstractTrainings):
    """Three networks, each trained on two thirds of the trusted examples; none judges an example whose label it saw.

    A trusted example, and a training example that is the same one, is judged by the network trained without it; every
    other example by the geometric mean of the three. Together they take 15% of the steps of the training on all the
    data, with batches of at most 32, but at least 40 steps each.

    Args:
        options: of the training on all the data.
        num_steps: of that training.
    """

    name = "trusted-ensemble"

    def __init__(self, options: CurationOptions, num_steps: int) -> None:
        super().__init__(replace(options, batch_size=min(_LARGEST_BATCH, options.batch_size), accumulate=1))
        self._num_steps = num_steps

    def plan(self, train: AbstractExamples, meta: AbstractExamples | None) -> list[int]:
        """Return the steps of each training."""
        num_folds = int(self.assign(read_trusted(train, meta, self.name)).max()) + 1
        length = max(_FEWEST_STEPS, int(self._num_steps * self.options.trusted_share / num_folds))
        return [length] * num_folds

    def allocate(self, train: AbstractExamples, meta: AbstractExamples | None) -> dict[str, Tensor]:
        """Return the log-probabilities of the training, the trusted and the unlabelled examples, to be filled in."""
        assert meta is not None
        num_classes = train.num_classes
        sizes = {"train": len(train), "trusted": len(meta)}
        if train.unlabelled is not None:
            sizes["unlabelled"] = len(train.unlabelled)
        return {name: torch.zeros(size, num_classes) for name, size in sizes.items()}

    def choose(self, state: TrainingsState) -> Lesson:
        """Return the trusted examples of all folds but one."""
        trusted = read_trusted(state.train, state.meta, self.name)
        return Lesson(trusted.examples, torch.nonzero(self.assign(trusted) != state.number).flatten())

    def conclude(self, state: TrainingsState, network: nn.Module) -> None:
        """Add what the network says of the training examples; note what it says of the fold it did not see."""
        trusted = read_trusted(state.train, state.meta, self.name)
        folds_M = self.assign(trusted)
        held = torch.nonzero(folds_M == state.number).flatten()
        logs_NC = _predict(network, state.train, state.device)
        fold_of_row_N = trusted.find_fold_of_rows(folds_M, len(state.train))
        state.memory["train"] += torch.where((fold_of_row_N < 0).unsqueeze(1), logs_NC / len(state.lengths), 0.0)
        own = fold_of_row_N == state.number
        state.memory["train"][own] = logs_NC[own]
        state.memory["trusted"][held] = _predict(network, trusted.examples, state.device, held)
        if state.train.unlabelled is not None:
            state.memory["unlabelled"] += _predict(network, state.train.unlabelled, state.device) / len(state.lengths)

    def decide(self, state: TrainingsState) -> Decisions:
        """Return the decisions of these networks alone."""
        shares_NC = state.memory["train"].softmax(1)
        return decide_by_probabilities(self.name, shares_NC, state.train.labels, "trusted_p_given", {})

    def assign(self, trusted: TrustedRows) -> Tensor:
        """Return the fold of each trusted example (M,)."""
        return trusted.assign(NUM_FOLDS, self.options.seed)


def _predict(
    network: nn.Module, examples: AbstractExamples, device: torch.device, rows: Tensor | None = None
) -> Tensor:
    return predict_probabilities(network, examples, device, rows).clamp_min(_LEAST).log()
