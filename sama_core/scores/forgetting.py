"""How often an example was forgotten."""

import torch
from torch import Tensor

from sama_core.scores.tracked import AbstractTrackedScore, Memory


class ForgettingScore(AbstractTrackedScore):
    """score = how often the example was right at one visit and wrong at the next; all epochs if it was never right.

    A pruning score: it is hardness, and hard examples are kept, as in the paper, which counts an example that was
    never learned as forgotten without end. noise_score = score / epochs, the same hardness in [0, 1], for tables of
    detection; many examples share a value.

    References:
        Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning, ICLR 2019.
    """

    name = "forgetting"

    def list_epochs(self, num_epochs: int) -> range:
        """Return them all."""
        return range(num_epochs)

    def allocate(self, num_examples: int, device: torch.device) -> Memory:
        """Return: right at the last visit, right at any, times forgotten."""
        return {name: torch.zeros(num_examples, device=device) for name in ("was_right", "learned", "forgotten")}

    def remember(
        self,
        memory: Memory,
        rows: Tensor,
        logits: Tensor,
        labels: Tensor,
        visit: int,  # noqa: ARG002 - the contract's signature
    ) -> None:
        """Count those that were right and are not any more."""
        is_right_B = (logits.argmax(1) == labels).to(memory["was_right"].dtype)
        memory["forgotten"].index_add_(0, rows, memory["was_right"][rows] * (1.0 - is_right_B))
        memory["learned"].index_copy_(0, rows, torch.maximum(memory["learned"][rows], is_right_B))
        memory["was_right"].index_copy_(0, rows, is_right_B)

    def judge(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the count and its share of the epochs."""
        num_epochs = float(self.options.epochs)
        counts_N = torch.where(memory["learned"] > 0, memory["forgotten"].double(), num_epochs)
        return counts_N, counts_N / num_epochs
