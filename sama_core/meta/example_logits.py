"""One free logit per example."""

import torch
from torch import Tensor, nn

from sama_core.evidence import Evidence
from sama_core.learned import AbstractLearned
from sama_core.meta.arguments import check_count
from sama_core.meta.bounds import bound_logits

_FREE = 2.0


class ExampleLogits(AbstractLearned):
    """Weight = 2 sigmoid(logit of the example): 0.005 to 1.995, and exactly 1 before the first meta step.

    Knows no features: each example earns its weight by its own hypergradients alone. A logit within 2 counts as it is;
    what lies beyond is squeezed, up to 6, so that no weight reaches 0 and every one can come back.

    Args:
        num_examples: N.

    Raises:
        OptionsError: ``num_examples`` is no whole number of at least 1.

    Example:
        >>> evidence = Evidence(torch.tensor([2]), torch.tensor([0]), torch.zeros(1, 4), torch.full((1, 2), 0.5))
        >>> ExampleLogits(3)(evidence).tolist()
        [1.0]
    """

    kind = "logits"
    is_positive = True

    def __init__(self, num_examples: int) -> None:
        super().__init__()
        check_count("num_examples", num_examples)
        self.example_logits = nn.Parameter(torch.zeros(num_examples))

    def forward(self, evidence: Evidence) -> Tensor:
        """Return the weights.

        Shapes: rows (B,) -> (B,).
        """
        logits_B = self.example_logits[evidence.rows]
        excess_B = bound_logits(torch.relu(logits_B.abs() - _FREE))
        return 2.0 * torch.sigmoid(logits_B.clamp(-_FREE, _FREE) + logits_B.sign() * excess_B)
