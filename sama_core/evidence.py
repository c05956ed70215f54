"""What is known of the examples of a batch when they are weighed."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """Facts about the B examples of a batch. Constants: no hypergradient passes through them.

    Attributes:
        rows: int64 (B,), row numbers in the data set.
        labels: int64 (B,), the given labels.
        features: (B, F), standardised.
        predictions: (B, C), probabilities of the network before the base step.
    """

    rows: Tensor
    labels: Tensor
    features: Tensor
    predictions: Tensor
