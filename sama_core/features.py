"""What the weight network sees of an example: evidence kept during training, at no extra pass but the average's.

Shape suffixes: N examples, B of a batch, C classes, F features.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FEATURE_NAMES = ("loss", "margin", "disagreement", "average_p_given")
_DECAY = 0.98
_LIMIT = 4.0


class FeatureMemory:
    """The last features of every example, and running moments that make them free of scale.

    The features, each a constant for the hypergradient:

    - ``loss``: log(1 + cross-entropy) of the given label;
    - ``margin``: logit of the given label minus the largest other logit, through asinh;
    - ``disagreement``: total variation distance between the probabilities of the network and of its moving average;
    - ``average_p_given``: probability of the given label averaged over the epochs so far.

    Each is standardised by a running mean and standard deviation and cut at 4 standard deviations. A feature that an
    example does not have yet counts as the mean.

    Args:
        num_examples: N.
        names: the features to keep, F of them, in the order of ``FEATURE_NAMES``.
        device: where the memory lives; N x F float32.
    """

    def __init__(self, num_examples: int, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self.raw_NF = torch.full((num_examples, len(names)), torch.nan, device=device)
        self._moments_2F = torch.zeros(2, len(names), device=device)
        self._mass_F = torch.zeros(len(names), device=device)

    def observe(self, rows: Tensor, raw: Mapping[str, Tensor]) -> Tensor:
        """Remember the raw features of ``rows`` (B,) and return them standardised (B, F).

        Args:
            rows: int64 (B,).
            raw: (B,) by name; a name left out keeps what is remembered.
        """
        dtype = self.raw_NF.dtype
        columns = [
            raw[name].to(dtype) if name in raw else self.raw_NF[rows, index] for index, name in enumerate(self.names)
        ]
        raw_BF = torch.stack(columns, dim=1)
        self.raw_NF[rows] = raw_BF
        fresh = [index for index, name in enumerate(self.names) if name in raw]
        keep = slice(None) if len(fresh) == len(self.names) else fresh
        seen_BF = raw_BF[:, keep]
        batch_2F = torch.stack((seen_BF.mean(0), seen_BF.square().mean(0)))
        self._moments_2F[:, keep] = self._moments_2F[:, keep].lerp(batch_2F, 1.0 - _DECAY)
        self._mass_F[keep] = self._mass_F[keep].lerp(torch.ones_like(self._mass_F[keep]), 1.0 - _DECAY)
        return self._standardise(raw_BF)

    def recall(self) -> Tensor:
        """Return the last features of every example, standardised (N, F)."""
        return self._standardise(self.raw_NF)

    def _standardise(self, raw: Tensor) -> Tensor:
        moments_2F = self._moments_2F / self._mass_F.clamp_min(1e-12)
        mean_F, square_F = moments_2F[0], moments_2F[1]
        deviation_F = (square_F - mean_F.square()).clamp_min(0.0).sqrt()
        standard: Tensor = (raw - mean_F) / deviation_F.clamp_min(1e-6)
        return standard.clamp(-_LIMIT, _LIMIT).nan_to_num(0.0)

    def export(self) -> dict[str, Tensor]:
        """Return the memory itself by name: what a checkpoint copies from and restores into."""
        return {"raw": self.raw_NF, "moments": self._moments_2F, "mass": self._mass_F}


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
