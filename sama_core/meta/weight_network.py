"""A small network from an example's features to its weight."""

import torch
from torch import Tensor, nn

from sama_core.evidence import Evidence
from sama_core.learned import AbstractLearned
from sama_core.meta.arguments import check_count
from sama_core.meta.bounds import weigh_logits


class WeightNetwork(AbstractLearned):
    """Weight = 2 sigmoid(MLP(features, given class, source)), the logit kept within 4: 0.04 to 1.96; 1 at the start.

    Args:
        num_features: F.
        num_classes: C; each given class has an embedding, added to the hidden units. None leaves the class out.
        width: units of the one hidden layer.
        sources: int64 (N,), the source of each example, 0..S-1, where it is known; each has an embedding likewise.

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

    # facts of the data set, not of the learning: a checkpoint need not carry them
    sources: Tensor | None

    def __init__(
        self, num_features: int, num_classes: int | None = None, width: int = 32, sources: Tensor | None = None
    ) -> None:
        super().__init__()
        check_count("num_features", num_features)
        check_count("width", width)
        self.hidden = nn.Linear(num_features, width)
        self.classes = None if num_classes is None else nn.Embedding(num_classes, width)
        self.output = nn.Linear(width, 1)
        self.register_buffer("sources", None if sources is None else sources.to(torch.int64).clone(), persistent=False)
        self.origins = None if sources is None else nn.Embedding(int(sources.max()) + 1, width)
        for embedding in (self.classes, self.origins):
            if embedding is not None:
                nn.init.zeros_(embedding.weight)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, evidence: Evidence) -> Tensor:
        """Return the weights.

        Shapes: features (B, F) -> (B,).
        """
        hidden_BU = self.hidden(evidence.features)
        if self.classes is not None:
            hidden_BU = hidden_BU + self.classes(evidence.labels)
        if self.origins is not None and self.sources is not None:
            hidden_BU = hidden_BU + self.origins(self.sources[evidence.rows])
        logits_B1: Tensor = self.output(torch.tanh(hidden_BU))
        return weigh_logits(logits_B1.squeeze(-1))
