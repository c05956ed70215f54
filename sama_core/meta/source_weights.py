"""One weight per source."""

import torch
from torch import Tensor, nn

from sama_core.errors import OptionsError
from sama_core.evidence import Evidence
from sama_core.learned import AbstractLearned
from sama_core.meta.arguments import check_count
from sama_core.meta.bounds import weigh_logits


class SourceWeights(AbstractLearned):
    """Weight = 2 sigmoid(logit of the example's source), the logit kept within 4: 0.04 to 1.96, and 1 at the start.

    A source is whatever delivered a part of the rows: an annotator, a labelling rule, a crawl, a language. With few
    sources each weight gathers the evidence of many examples, and is sure long before a weight per example could be.

    Args:
        sources: whole numbers (N,), the source of each row, 0..S-1.
        num_sources: S; a source without rows is allowed and keeps the weight 1.

    Raises:
        OptionsError: ``num_sources`` is no whole number of at least 1, or ``sources`` is not as above.

    Example:
        >>> learned = SourceWeights(torch.tensor([0, 0, 1]), num_sources=2)
        >>> _ = torch.nn.init.constant_(learned.source_logits[1:], -1e9)
        >>> evidence = Evidence(torch.tensor([2, 1]), torch.tensor([0, 1]), torch.zeros(2, 4), torch.full((2, 2), 0.5))
        >>> learned(evidence).detach()
        tensor([0.0360, 1.0000])
    """

    kind = "sources"
    is_positive = True
    sources: Tensor

    def __init__(self, sources: Tensor, num_sources: int) -> None:
        super().__init__()
        check_count("num_sources", num_sources)
        _check_sources(sources, num_sources)
        # The sources are facts of the data set, not of the learning: a checkpoint need not carry them.
        self.register_buffer("sources", sources.to(torch.int64).clone(), persistent=False)
        self.source_logits = nn.Parameter(torch.zeros(num_sources))

    def forward(self, evidence: Evidence) -> Tensor:
        """Return the weights.

        Shapes: rows (B,) -> (B,).
        """
        return weigh_logits(self.source_logits[self.sources[evidence.rows]])

    @torch.no_grad()
    def weights(self) -> Tensor:
        """Return the weight of every source, without a graph.

        Shapes: -> (S,).
        """
        return weigh_logits(self.source_logits)


def _check_sources(sources: Tensor, num_sources: int) -> None:
    wanted = f"whole numbers (N,) from 0 to {num_sources - 1}, one for each row"
    if not isinstance(sources, Tensor):
        raise OptionsError(f"sources: {type(sources).__name__}; wanted a tensor of {wanted}")
    is_whole = not (sources.is_floating_point() or sources.is_complex() or sources.dtype == torch.bool)
    if sources.dim() != 1 or len(sources) == 0 or not is_whole:
        raise OptionsError(f"sources: {sources.dtype} of shape {tuple(sources.shape)}; wanted {wanted}")
    lowest, highest = int(sources.min()), int(sources.max())
    if lowest < 0 or highest >= num_sources:
        raise OptionsError(f"sources: from {lowest} to {highest}; wanted {wanted}")
