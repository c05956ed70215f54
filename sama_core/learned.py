"""The contract of what the meta level learns."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from sama_core.batch import Batch
from sama_core.evidence import Evidence
from sama_core.losses import given_label_losses


class AbstractLearned(nn.Module, ABC):
    """Gives each example of a batch the coefficient of its loss, or of each of its K loss terms.

    Its parameters are lambda. The base loss is ``coefficients * losses`` summed over the terms, averaged over the
    examples; with one term and coefficients of 1 it is plain training. A subclass may be any function of the evidence
    that autograd can differentiate.

    Attributes:
        kind: its name.
        is_positive: True where no coefficient can reach 0: the ghost route divides by it.
    """

    kind: str
    is_positive: bool = False

    @abstractmethod
    def forward(self, evidence: Evidence) -> Tensor:
        """Return the coefficients.

        Shapes: the same as ``losses`` gives for the batch: (B,) or (B, K); each 0 or more.
        """

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss terms that the coefficients multiply, (B,) or (B, K); the given label's by default."""
        return given_label_losses(outputs, batch)

    def summarise(self, coefficients: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002  (others read them)
        """Return one weight for each example, as it is reported (B,): the sum of its coefficients by default.

        Shapes: coefficients as ``forward`` gave them, labels (B,) -> (B,).
        """
        return coefficients if coefficients.dim() == 1 else coefficients.sum(1)

    @property
    def weighs_given_labels(self) -> bool:
        """True where the terms are the cross-entropies of the given labels under the network's own class scores."""
        kind = type(self)
        return kind.losses is AbstractLearned.losses and kind.logits is AbstractLearned.logits

    def logits(self, outputs: Any) -> Tensor:
        """Return the class scores (B, C) that the evidence is computed from; the outputs themselves by default."""
        scores: Tensor = outputs
        return scores
