"""What the weight network sees of an example: evidence kept during training, at no extra pass but the average's.

Shape suffixes: N examples, B of a batch, C classes, F features.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

JUDGES: Mapping[str, tuple[str, str]] = {
    "trusted": ("trusted_p_given", "trusted_margin"),
    "votes": ("votes_p_given", "votes_margin"),
}
"""Who may have judged the examples before training, and the features made of what each says of the given labels."""
_DECAY = 0.98
_LIMIT = 4.0
_LEAST_VARIANCE = 1e-12


class FeatureMemory:
    """The last features of every example, and running moments that make them free of scale.

    The features, each a constant for the hypergradient:

    - ``loss``: log(1 + cross-entropy) of the given label;
    - ``margin``: logit of the given label minus the largest other logit, through asinh;
    - ``disagreement``: total variation distance between the probabilities of the network and of its moving average;
    - ``average_p_given``: probability of the given label averaged over the epochs so far;
    - ``spread``: standard deviation of that probability over a window, the last 32 to 64 epochs;
    - ``forgotten``: how often the label was predicted before and not any more, a visit;
    - ``trusted_p_given``: probability of the given label under networks trained on the trusted examples alone;
    - ``trusted_margin``: its log-probability there minus that of the likeliest other class, through asinh;
    - ``votes_p_given``, ``votes_margin``: the same by the votes of labelling functions, each function as reliable as it
      proved on the trusted examples;
    - ``neighbours``: share of the given label among the labels of the nearest neighbours in the network's own
      representation, as it was at the beginning of the epoch.

    Each is standardised by a running mean and standard deviation and cut at 4 standard deviations. A feature that an
    example does not have yet counts as the mean.

    Args:
        num_examples: N.
        names: the features to keep, F of them, some of ``sama_core.options.FeatureName``.
        device: where the memory lives; N x F float32.
    """

    def __init__(self, num_examples: int, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self.raw_NF = torch.full((num_examples, len(names)), torch.nan, device=device)
        self._moments_2F = torch.zeros(2, len(names), device=device)
        self._counts = torch.zeros(len(names), dtype=torch.int64)
        self._fresh: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}

    def observe(self, rows: Tensor, raw: Mapping[str, Tensor]) -> Tensor:
        """Remember the raw features of ``rows`` (B,) and return them standardised (B, F).

        Args:
            rows: int64 (B,).
            raw: (B,) by name; a name left out keeps what is remembered.
        """
        dtype, is_whole = self.raw_NF.dtype, len(raw) == len(self.names)
        columns = [
            raw[name].to(dtype) if name in raw else self.raw_NF[rows, index] for index, name in enumerate(self.names)
        ]
        raw_BF = torch.stack(columns, dim=1)
        self.raw_NF.index_copy_(0, rows, raw_BF)
        batch_2F = torch.stack((raw_BF, raw_BF.square())).mean(1)
        if is_whole:
            self._moments_2F.lerp_(batch_2F, 1.0 - _DECAY)
            self._counts += 1
        elif raw:
            rates_F, fresh_F = self._find_fresh(tuple(raw))
            self._moments_2F.lerp_(batch_2F.nan_to_num(0.0), rates_F)
            self._counts += fresh_F
        return self._standardise(raw_BF, is_whole=is_whole)

    def _find_fresh(self, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return how fast the moments of each feature move when only these are measured, and which move at all."""
        if names not in self._fresh:
            fresh_F = torch.tensor([int(name in names) for name in self.names])
            self._fresh[names] = (fresh_F * (1.0 - _DECAY)).to(self._moments_2F), fresh_F
        return self._fresh[names]

    def recall(self) -> Tensor:
        """Return the last features of every example, standardised (N, F)."""
        return self._standardise(self.raw_NF)

    def _standardise(self, raw: Tensor, *, is_whole: bool = False) -> Tensor:
        """Return the raw features free of scale; ``is_whole`` promises that none is missing."""
        mass_F = (1.0 - _DECAY**self._counts).clamp_min(1e-12).to(raw.device, raw.dtype, non_blocking=True)
        mean_F, square_F = (self._moments_2F / mass_F).unbind()
        deviation_F = (square_F - mean_F.square()).clamp_min(_LEAST_VARIANCE).sqrt()
        standard: Tensor = ((raw - mean_F) / deviation_F).clamp(-_LIMIT, _LIMIT)
        return standard if is_whole else standard.nan_to_num(0.0)

    def export(self) -> dict[str, Tensor]:
        """Return the memory itself by name: what a checkpoint copies from and restores into."""
        return {"raw": self.raw_NF, "moments": self._moments_2F, "counts": self._counts}


def compute_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of the label minus the largest other logit.

    Shapes: logits (B, C), labels (B,) -> (B,).

    Example:
        >>> compute_margins(torch.tensor([[3.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1]))
        tensor([ 2., -2.])
    """
    index_B1 = labels.unsqueeze(1)
    given_B = logits.gather(1, index_B1).squeeze(1)
    others_BC = logits.scatter(1, index_B1, float("-inf"))
    return given_B - others_BC.amax(1)


def measure_disagreement(probabilities: Tensor, others: Tensor) -> Tensor:
    """Return the total variation distance of two distributions, in [0, 1].

    Shapes: both (B, C) -> (B,).

    Example:
        >>> measure_disagreement(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([1.])
    """
    return 0.5 * (probabilities - others).abs().sum(1)
