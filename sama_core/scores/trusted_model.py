"""A model trained on the trusted examples alone.

Shape suffixes: N training examples, M trusted ones, C classes.
"""

import torch
from torch import Tensor, nn

from sama_core.decisions import Decisions
from sama_core.scores.given import decide_by_probabilities
from sama_core.scores.trainings import AbstractTrainings, Lesson, TrainingsState, predict_probabilities
from sama_core.scores.trusted_rows import NUM_FOLDS, TrustedRows, choose_trusted_steps, read_trusted
from sama_core.types import AbstractExamples


class TrustedModel(AbstractTrainings):
    """score = probability of the given label under a model trained on the trusted examples alone; noise_score = 1 - it.

    Where a trusted example is itself a training example, the model that scores it is one of five trained on four
    fifths of the trusted examples, that without it; no row is scored by a model that saw its own trusted label. Those
    five are trained only where there is such an example. Each training takes its usual epochs, at least 500 steps and
    at most the steps of a training on all the data. A meta set is needed.

    Source: the control "meta set alone", as a detector.
    """

    name = "trusted-model"

    def plan(self, train: AbstractExamples, meta: AbstractExamples | None) -> list[int]:
        """Return the steps of the training on all trusted examples, then of those on all folds but one."""
        trusted = read_trusted(train, meta, self.name)
        folds_M = self._assign(trusted)
        sizes = [len(folds_M), *((folds_M != fold).sum().item() for fold in range(self._count_folds(trusted)))]
        whole = self.count_steps(len(train))
        return [choose_trusted_steps(self.count_steps(int(size)), whole) for size in sizes]

    def allocate(self, train: AbstractExamples, meta: AbstractExamples | None) -> dict[str, Tensor]:
        """Return the probabilities of the training examples, and the cross-fitted ones of the trusted examples."""
        assert meta is not None
        num_classes = train.num_classes
        return {"train": torch.zeros(len(train), num_classes), "trusted": torch.zeros(len(meta), num_classes)}

    def choose(self, state: TrainingsState) -> Lesson:
        """Return all trusted examples, then all but those of one fold."""
        trusted = self._read(state)
        if state.number == 0:
            return Lesson(trusted.examples)
        return Lesson(trusted.examples, torch.nonzero(self._assign(trusted) != state.number - 1).flatten())

    def conclude(self, state: TrainingsState, network: nn.Module) -> None:
        """Write the probabilities of all training examples, then of the fold left out and of its training copies."""
        memory, train = state.memory, state.train
        if state.number == 0:
            memory["train"].copy_(predict_probabilities(network, train, state.device))
            return
        trusted, fold = self._read(state), state.number - 1
        folds_M = self._assign(trusted)
        held = torch.nonzero(folds_M == fold).flatten()
        rows = torch.nonzero(trusted.find_fold_of_rows(folds_M) == fold).flatten()
        memory["trusted"][held] = predict_probabilities(network, trusted.examples, state.device, held)
        memory["train"][rows] = predict_probabilities(network, train, state.device, rows)

    def decide(self, state: TrainingsState) -> Decisions:
        """Return the decisions of the model's probabilities."""
        return decide_by_probabilities(self.name, state.memory["train"], state.train.labels, "trusted_p_given", {})

    def _read(self, state: TrainingsState) -> TrustedRows:
        return read_trusted(state.train, state.meta, self.name)

    def _assign(self, trusted: TrustedRows) -> Tensor:
        return trusted.assign(NUM_FOLDS, self.options.seed)

    def _count_folds(self, trusted: TrustedRows) -> int:
        """Return how many models are trained on all trusted examples but a fold."""
        return trusted.count_folds(NUM_FOLDS) if trusted.overlap else 0
