"""A small network from an example's features to its weight."""

import torch
from torch import Tensor, nn

from sama_core.learned import AbstractLearned

_LIMIT = 4.0


class WeightNetwork(AbstractLearned):
    """Weight = 2 sigmoid(MLP(features)), the logit kept within 4: 0.04 to 1.96, and 1 before the first meta step.

    Args:
        num_features: F.
        width: units of the one hidden layer.

    Example:
        >>> WeightNetwork(4)(torch.tensor([0, 1]), torch.randn(2, 4)).tolist()
        [1.0, 1.0]

    References:
        Shu et al., Meta-Weight-Net (2019), with richer features and a neutral start.
    """

    kind = "network"

    def __init__(self, num_features: int, width: int = 32) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, width)
        self.output = nn.Linear(width, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, rows: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002 - the contract's signature
        """Return the weights (B,)."""
        logits_B = self.output(torch.tanh(self.hidden(features))).squeeze(-1)
        # An unbounded logit runs off while every example still helps; the sigmoid's derivative then rounds to 0, and
        # no later evidence brings the weight back.
        return 2.0 * torch.sigmoid(logits_B / (1.0 + logits_B.abs() / _LIMIT))
