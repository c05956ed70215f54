"""Self-training from the trusted model.

Shape suffixes: N training examples, M trusted ones, C classes.
"""

import torch
from torch import Tensor, nn

from sama_core.decisions import Decisions
from sama_core.scores.given import decide_by_probabilities
from sama_core.scores.trainings import AbstractTrainings, Lesson, TrainingsState, predict_probabilities
from sama_core.scores.trusted_rows import TrustedRows, choose_trusted_steps, read_trusted
from sama_core.types import JSON, AbstractExamples
from sama_core.views import JoinedExamples, RelabelledExamples

NUM_ROUNDS, NUM_CHAINS = 3, 3


class SelfTraining(AbstractTrainings):
    """score = probability of the given label under a self-trained model, noise_score = 1 - score; needs a meta set.

    A model is trained on the trusted examples; then, three times over, a new one on them and on the training examples
    of which the last was surest, each under the class it predicted: of every predicted class the surest quarter, half
    and three quarters. The given labels are never trained on. Every round takes the steps of a plain training.

    Where trusted examples are training examples themselves there are three such chains, each without a third of the
    trusted examples; a trusted row is scored by the chain that never saw its trusted label, every other row by the
    mean of the three.

    References:
        Lee, Pseudo-Label, 2013; Cascante-Bonilla et al., Curriculum Labeling, AAAI 2021 (the growing shares).
    """

    name = "self-training"

    def plan(self, train: AbstractExamples, meta: AbstractExamples | None) -> list[int]:
        """Return the steps of each chain's trusted model and rounds."""
        trusted = read_trusted(train, meta, self.name)
        whole = self.count_steps(len(train))
        lengths = []
        for chain in range(_count_chains(trusted)):
            own = self.count_steps(len(self._list_taught(trusted, chain)))
            lengths += [choose_trusted_steps(own, whole), *([whole] * NUM_ROUNDS)]
        return lengths

    def allocate(self, train: AbstractExamples, meta: AbstractExamples | None) -> dict[str, Tensor]:
        """Return the last predictions of each chain."""
        num_chains = _count_chains(read_trusted(train, meta, self.name))
        return {str(chain): torch.zeros(len(train), train.num_classes) for chain in range(num_chains)}

    def choose(self, state: TrainingsState) -> Lesson:
        """Return the chain's trusted examples, in the rounds with the surest training examples."""
        trusted = read_trusted(state.train, state.meta, self.name)
        chain, number = divmod(state.number, NUM_ROUNDS + 1)
        taught = self._list_taught(trusted, chain)
        if number == 0:
            return Lesson(trusted.examples, taught)
        predicted_NC = state.memory[str(chain)]
        sure = find_surest(*predicted_NC.max(dim=1), number / (NUM_ROUNDS + 1))
        fold_of_row_N = trusted.find_fold_of_rows(self._assign(trusted))
        sure[(fold_of_row_N >= 0) & (fold_of_row_N != chain)] = False
        examples = JoinedExamples(RelabelledExamples(state.train, predicted_NC.argmax(1)), trusted.examples)
        return Lesson(examples, torch.cat([torch.nonzero(sure).flatten(), taught + len(state.train)]))

    def conclude(self, state: TrainingsState, network: nn.Module) -> None:
        """Write the predictions of the training examples."""
        chain = state.number // (NUM_ROUNDS + 1)
        state.memory[str(chain)].copy_(predict_probabilities(network, state.train, state.device))

    def decide(self, state: TrainingsState) -> Decisions:
        """Return the decisions of the chains' last predictions."""
        trusted = read_trusted(state.train, state.meta, self.name)
        chains = torch.stack([state.memory[str(chain)] for chain in range(len(state.memory))])
        probabilities_NC = chains.mean(0)
        fold_of_row_N = trusted.find_fold_of_rows(self._assign(trusted))
        rows = torch.nonzero(fold_of_row_N >= 0).flatten()
        probabilities_NC[rows] = chains[fold_of_row_N[rows], rows]
        facts: dict[str, JSON] = {"num_rounds": NUM_ROUNDS, "num_chains": len(chains)}
        return decide_by_probabilities(self.name, probabilities_NC, state.train.labels, "self_trained_p_given", facts)

    def _assign(self, trusted: TrustedRows) -> Tensor:
        return trusted.assign(NUM_CHAINS, self.options.seed)

    def _list_taught(self, trusted: TrustedRows, chain: int) -> Tensor:
        """Return the trusted examples that a chain learns from."""
        if not trusted.overlap:
            return torch.arange(len(trusted.given))
        return torch.nonzero(self._assign(trusted) != chain).flatten()


def _count_chains(trusted: TrustedRows) -> int:
    return trusted.count_folds(NUM_CHAINS) if trusted.overlap else 1


def find_surest(confidence: Tensor, predicted: Tensor, share: float) -> Tensor:
    """Return which examples are among the surest ``share`` of their predicted class, bool (N,).

    Shapes: confidence (N,), predicted int64 (N,). At least one example of each class that is predicted at all.

    Example:
        >>> find_surest(torch.tensor([0.9, 0.6, 0.8]), torch.tensor([0, 0, 1]), 0.5)
        tensor([ True, False,  True])
    """
    order_N = torch.argsort(confidence, descending=True, stable=True)
    by_class_N = order_N[torch.argsort(predicted[order_N], stable=True)]
    sizes_C = torch.bincount(predicted)
    starts_C = sizes_C.cumsum(0) - sizes_C
    place_N = torch.empty_like(predicted)
    place_N[by_class_N] = torch.arange(len(predicted)) - starts_C[predicted[by_class_N]]
    sure_N: Tensor = place_N < (sizes_C[predicted] * share).ceil().clamp_min(1.0)
    return sure_N
