"""Gradient norm early in training."""

import torch
from torch import Tensor, nn

from sama_core.batch import Batch
from sama_core.scores.gradient_norms import choose_gradient_route, measure_gradient_norms
from sama_core.scores.tracked import (
    AbstractTrackedScore,
    Memory,
    TrackedState,
    add_visit,
    average_visits,
    list_early_epochs,
)
from sama_core.tensors import move_inputs
from sama_core.types import AbstractExamples

_FACT = "gradient_norms"


class GrandScore(AbstractTrackedScore):
    """score = norm of the gradient of the example's loss over all parameters, averaged over the early epochs.

    A pruning score: it is hardness, and hard examples are kept, as in the paper. noise_score = score / (1 + score),
    the same hardness in [0, 1], for tables of detection.

    The paper averages over ten trainings; here one training gives the average over its early epochs, a tenth of them
    but for the first, and ends with them. The gradient is exact and over all parameters (many implementations take
    the last layer's alone), measured in evaluation mode when the example's batch is about to be stepped on. Cost:
    each early visit adds a forward and a backward pass per example, by ``torch.func.vmap`` over chunks where the
    network's layers allow it (bags of embeddings by a closed form), else one example at a time, B passes a batch;
    ``facts["gradient_norms"]`` says which. On one core that took the time of 3 plain steps (small convolutional
    network) to 10 (perceptron), one for bags of n-grams: in all 0.3 to 1 plain training.

    References:
        Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021.
    """

    name = "grand"

    def list_epochs(self, num_epochs: int) -> range:
        """Return a tenth of them, but for the first."""
        return list_early_epochs(num_epochs, 0.1)

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None = None,
        device: torch.device | str = "cpu",
    ) -> TrackedState:
        """Return the state before the first step, with the way the norms are taken settled."""
        state = super().init(network, train, meta, device)
        base, rows = state.training.base, torch.arange(min(2, len(train)))
        inputs, labels_B = move_inputs(train.fetch(rows), base.device), train.labels[rows].to(base.device)
        state.facts[_FACT] = choose_gradient_route(base.network, inputs, labels_B)
        return state

    def allocate(self, num_examples: int, device: torch.device) -> Memory:
        """Return the sums of the norms and the visits that they are over."""
        return {"sums": torch.zeros(num_examples, device=device), "visits": torch.zeros(num_examples, device=device)}

    def look(self, state: TrackedState, batch: Batch) -> None:
        """Add the gradient norms of a batch."""
        network = state.training.network
        norms_B = measure_gradient_norms(network, batch.inputs, batch.labels, str(state.facts[_FACT]))
        add_visit(state.memory, batch.rows, norms_B)

    def remember(self, memory: Memory, rows: Tensor, logits: Tensor, labels: Tensor, visit: int) -> None:
        """Remember nothing of the base pass."""

    def judge(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the norm and its mapping to [0, 1]."""
        norms_N = average_visits(memory)
        return norms_N, norms_N / (1.0 + norms_N)
