"""One free logit per example."""

import torch
from torch import Tensor, nn

from sama_core.learned import AbstractLearned


class ExampleLogits(AbstractLearned):
    """Weight = 2 sigmoid(logit of the example): between 0 and 2, and exactly 1 before the first meta step.

    Knows no features: each example earns its weight by its own hypergradients alone.

    Args:
        num_examples: N.

    Example:
        >>> ExampleLogits(3)(torch.tensor([2]), torch.zeros(1, 4)).tolist()
        [1.0]
    """

    kind = "logits"

    def __init__(self, num_examples: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_examples))

    def forward(self, rows: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002 - the contract's signature
        """Return the weights (B,)."""
        return 2.0 * torch.sigmoid(self.logits[rows])
