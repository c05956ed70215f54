"""A small network from an example's features to its weight."""

import torch
from torch import Tensor, nn

from sama_core.evidence import Evidence
from sama_core.learned import AbstractLearned
from sama_core.meta.arguments import check_count
from sama_core.meta.bounds import weigh_logits


class WeightNetwork(AbstractLearned):
    """Weight = 2 sigmoid(MLP(features, given class)), the logit kept within 4: 0.04 to 1.96, 1 before any meta step.

    Args:
        num_features: F.
        num_classes: C; each given class has an embedding, added to the hidden units. None leaves the class out.
        width: units of the one hidden layer.

    Raises:
        OptionsError: an argument is no whole number of at least 1.

    Example:
        >>> rows = torch.tensor([0, 1])
        >>> WeightNetwork(4)(Evidence(rows, rows, torch.randn(2, 4), torch.full((2, 2), 0.5))).tolist()
        [1.0, 1.0]

    References:
        Shu et al., Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting, NeurIPS 2019, here with richer
        features and a neutral start.
    """

    kind = "network"
    is_positive = True

    def __init__(self, num_features: int, num_classes: int | None = None, width: int = 32) -> None:
        super().__init__()
        check_count("num_features", num_features)
        check_count("width", width)
        self.hidden = nn.Linear(num_features, width)
        self.classes = None if num_classes is None else nn.Embedding(num_classes, width)
        self.output = nn.Linear(width, 1)
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, evidence: Evidence) -> Tensor:
        """Return the weights.

        Shapes: features (B, F) -> (B,).
        """
        hidden_BU = self.hidden(evidence.features)
        if self.classes is not None:
            hidden_BU = hidden_BU + self.classes(evidence.labels)
        logits_B1: Tensor = self.output(torch.tanh(hidden_BU))
        return weigh_logits(logits_B1.squeeze(-1))
