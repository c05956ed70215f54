"""The text network: a weighted bag of n-gram embeddings under a small head."""

import torch
from torch import Tensor, nn

# Legend: B examples, L longest list of the batch, E embedding width, C classes.

_PADDING = 0


class BagClassifier(nn.Module):
    """Sums the embeddings of a text's grams by their weights, then classifies the sum.

    Shapes: takes (ids (B, L) int64 with 0 as padding, weights (B, L)), returns logits (B, C).
    """

    def __init__(self, num_grams: int, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(num_grams, width, mode="sum", padding_idx=_PADDING)
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, num_classes)
        )
        with torch.no_grad():
            self.embeddings.weight.mul_(width**-0.5)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Return the logits of a batch."""
        ids_BL, weights_BL = inputs
        bags_BE = self.embeddings(ids_BL, per_sample_weights=weights_BL.to(self.embeddings.weight.dtype))
        logits_BC: Tensor = self.head(bags_BE)
        return logits_BC
