"""Small networks trained on the trusted examples alone, cross-fitted, at a fraction of one training's cost.

Shape suffixes: N training examples, M trusted ones, C classes, K folds.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from sama_core.decisions import Decisions
from sama_core.options import CurationOptions
from sama_core.scores.given import decide_by_probabilities
from sama_core.scores.self_training import find_surest
from sama_core.scores.trainings import AbstractTrainings, Lesson, TrainingsState, predict_probabilities
from sama_core.scores.trusted_rows import TrustedRows, find_folds, read_trusted
from sama_core.types import AbstractExamples
from sama_core.views import JoinedExamples, RelabelledExamples

NUM_FOLDS = 3
NUM_ROUNDS = 3
ENOUGH_RIGHT = 0.85
_LARGEST_BATCH = 32
_FEWEST_STEPS, _FEWEST_OF_ROUND = 40, 80
_LEAST = 1e-6


class TrustedEnsemble(AbstractTrainings):
    """Three networks, each trained on two thirds of the trusted examples; none judges an example whose label it saw.

    A trusted example, and a training example that is the same one, is judged by the network trained without it; every
    other example by the geometric mean of the three. Together they take 15% of the steps of the training on all the
    data, with batches of at most 32, but at least 40 steps each.

    Where they are right about at least 85% of the trusted examples that they did not see, each is followed by three
    rounds of self-training, a new network a round: on its own trusted examples and on the training examples of which
    the network before was surest, each under the class that it predicted, of every predicted class the surest quarter,
    half and three quarters. The given labels are never trained on. The last networks then judge in the place of the
    first. All rounds together take the same 15% again, but at least 80 steps each (as many as the training on all the
    data, where that has fewer). Below 85% self-training was measured to change nothing or to do harm.

    Args:
        options: of the training on all the data.
        num_steps: of that training.
    """

    name = "trusted-ensemble"

    def __init__(self, options: CurationOptions, num_steps: int) -> None:
        super().__init__(replace(options, batch_size=min(_LARGEST_BATCH, options.batch_size), accumulate=1))
        self._num_steps = num_steps

    def plan(self, train: AbstractExamples, meta: AbstractExamples | None) -> list[int]:
        """Return the steps of each training on trusted examples alone."""
        num_folds = self._count_folds(read_trusted(train, meta, self.name))
        return [max(_FEWEST_STEPS, self._share_out(num_folds))] * num_folds

    def go_on(self, state: TrainingsState) -> list[int]:
        """Return the steps of each round of self-training, the rounds of one fold after those of another."""
        return self._list_rounds(state.num_planned) if int(state.memory["goes_on"]) else []

    def count_most_steps(self, state: TrainingsState) -> int:
        """Return the steps of all trainings, the rounds counted as long as it is not known whether they follow."""
        is_open = state.number < state.num_planned
        return state.num_steps + is_open * sum(self._list_rounds(state.num_planned))

    def _list_rounds(self, num_folds: int) -> list[int]:
        num_rounds = NUM_ROUNDS * num_folds
        return [max(min(_FEWEST_OF_ROUND, self._num_steps), self._share_out(num_rounds))] * num_rounds

    def _share_out(self, num_trainings: int) -> int:
        return int(self._num_steps * self.options.trusted_share / num_trainings)

    def allocate(self, train: AbstractExamples, meta: AbstractExamples | None) -> dict[str, Tensor]:
        """Return log-probabilities of the training, the trusted and the unlabelled examples, to be filled in.

        And what the last network of each fold predicted of the training examples, and how sure it was, (K, N) each.
        """
        assert meta is not None
        num_classes, num_folds = train.num_classes, self._count_folds(read_trusted(train, meta, self.name))
        sizes = {"train": len(train), "trusted": len(meta)}
        if train.unlabelled is not None:
            sizes["unlabelled"] = len(train.unlabelled)
        return {
            **{name: torch.zeros(size, num_classes) for name, size in sizes.items()},
            "predicted": torch.zeros(num_folds, len(train), dtype=torch.int64),
            "confidence": torch.zeros(num_folds, len(train)),
            "goes_on": torch.tensor(0),
        }

    def choose(self, state: TrainingsState) -> Lesson:
        """Return the trusted examples of all folds but one; in the rounds with the surest training examples."""
        trusted = read_trusted(state.train, state.meta, self.name)
        fold, number = _locate(state)
        taught = torch.nonzero(self.assign(trusted) != fold).flatten()
        if number == 0:
            return Lesson(trusted.examples, taught)
        predicted_N = state.memory["predicted"][fold].clone()
        sure_N = find_surest(state.memory["confidence"][fold], predicted_N, number / (NUM_ROUNDS + 1))
        fold_of_row_N = trusted.find_fold_of_rows(self.assign(trusted))
        sure_N[(fold_of_row_N >= 0) & (fold_of_row_N != fold)] = False
        examples = JoinedExamples(RelabelledExamples(state.train, predicted_N), trusted.examples)
        return Lesson(examples, torch.cat([torch.nonzero(sure_N).flatten(), taught + len(state.train)]))

    def conclude(self, state: TrainingsState, network: nn.Module) -> None:
        """Note what the network predicts; judge by it unless it is one between the first and the last of its fold."""
        fold, number = _locate(state)
        shares_NC = predict_probabilities(network, state.train, state.device)
        state.memory["confidence"][fold], state.memory["predicted"][fold] = shares_NC.max(1)
        if number in (0, NUM_ROUNDS):
            self._judge(state, network, fold, shares_NC.clamp_min(_LEAST).log())
        if state.number == state.num_planned - 1:
            self._decide_to_go_on(state)

    def _judge(self, state: TrainingsState, network: nn.Module, fold: int, logs: Tensor) -> None:
        """Add what the network says of the training examples (N, C); note what it says of the fold it did not see."""
        trusted = read_trusted(state.train, state.meta, self.name)
        folds_M, num_folds = self.assign(trusted), state.num_planned
        held = torch.nonzero(folds_M == fold).flatten()
        _add(state.memory["train"], logs, trusted.find_fold_of_rows(folds_M), fold, num_folds)
        state.memory["trusted"][held] = _predict(network, trusted.examples, state.device, held)
        if state.train.unlabelled is not None and trusted.unlabelled_groups is not None:
            fold_of_unlabelled_U = find_folds(folds_M, trusted.unlabelled_groups)
            logs_UC = _predict(network, state.train.unlabelled, state.device)
            _add(state.memory["unlabelled"], logs_UC, fold_of_unlabelled_U, fold, num_folds)

    def _decide_to_go_on(self, state: TrainingsState) -> None:
        """Look how often the first networks are right about what they did not see; if often, clear their judgement."""
        assert state.meta is not None
        right_M = state.memory["trusted"].argmax(1) == state.meta.labels
        if float(right_M.double().mean()) >= ENOUGH_RIGHT:
            state.memory["goes_on"].fill_(1)
            for name in ("train", "unlabelled"):
                if name in state.memory:
                    state.memory[name].zero_()

    def decide(self, state: TrainingsState) -> Decisions:
        """Return the decisions of these networks alone."""
        shares_NC = state.memory["train"].softmax(1)
        return decide_by_probabilities(self.name, shares_NC, state.train.labels, "trusted_p_given", {})

    def assign(self, trusted: TrustedRows) -> Tensor:
        """Return the fold of each trusted example (M,)."""
        return trusted.assign(NUM_FOLDS, self.options.seed)

    def _count_folds(self, trusted: TrustedRows) -> int:
        return int(self.assign(trusted).max()) + 1


def _locate(state: TrainingsState) -> tuple[int, int]:
    """Return the fold of the training that runs, and its number among that fold's: 0 is that on trusted alone."""
    if state.number < state.num_planned:
        return state.number, 0
    fold, number = divmod(state.number - state.num_planned, NUM_ROUNDS)
    return fold, number + 1


def _add(judged: Tensor, logs: Tensor, fold_of_row: Tensor, fold: int, num_folds: int) -> None:
    """Add a network's share to what all folds say of each row, and all it says of rows that only it did not see."""
    judged += torch.where((fold_of_row < 0).unsqueeze(1), logs / num_folds, 0.0)
    own = fold_of_row == fold
    judged[own] = logs[own]


def _predict(
    network: nn.Module, examples: AbstractExamples, device: torch.device, rows: Tensor | None = None
) -> Tensor:
    return predict_probabilities(network, examples, device, rows).clamp_min(_LEAST).log()
