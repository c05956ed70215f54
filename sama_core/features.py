"""What the weight network sees of an example: evidence kept during training, at no extra pass but the average's.

Shape suffixes: N examples, B of a batch, C classes, F features.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

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

    Each is standardised by a running mean and standard deviation and cut at 4 standard deviations.

    Args:
        num_examples: N.
        device: where the memory lives; N x 4 float32.
    """

    def __init__(self, num_examples: int, device: torch.device) -> None:
        self.raw_NF = torch.zeros(num_examples, len(FEATURE_NAMES), device=device)
        self.seen_N = torch.zeros(num_examples, dtype=torch.bool, device=device)
        self._moments_2F = torch.zeros(2, len(FEATURE_NAMES), device=device)
        self._mass = torch.zeros((), device=device)

    def observe(self, rows: Tensor, raw: Tensor) -> Tensor:
        """Remember the raw features (B, F) of ``rows`` (B,) and return them standardised (B, F)."""
        raw_BF = raw.to(self.raw_NF.dtype)
        self.raw_NF[rows] = raw_BF
        self.seen_N[rows] = True
        batch_2F = torch.stack((raw_BF.mean(0), raw_BF.square().mean(0)))
        self._moments_2F.lerp_(batch_2F, 1.0 - _DECAY)
        self._mass.lerp_(torch.ones_like(self._mass), 1.0 - _DECAY)
        return self._standardise(raw_BF)

    def recall(self) -> Tensor:
        """Return the last features of every example, standardised (N, F)."""
        return self._standardise(self.raw_NF)

    def _standardise(self, raw: Tensor) -> Tensor:
        moments_2F = self._moments_2F / self._mass.clamp_min(1e-12)
        mean_F, square_F = moments_2F[0], moments_2F[1]
        deviation_F = (square_F - mean_F.square()).clamp_min(0.0).sqrt()
        standard: Tensor = (raw - mean_F) / deviation_F.clamp_min(1e-6)
        return standard.clamp(-_LIMIT, _LIMIT)

    def export(self) -> dict[str, Tensor]:
        """Return the memory itself by name: what a checkpoint copies from and restores into."""
        return {
            "raw": self.raw_NF,
            "seen": self.seen_N,
            "moments": self._moments_2F,
            "mass": self._mass,
        }


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


def compute_features(logits: Tensor, average_logits: Tensor, labels: Tensor, average_p_given: Tensor) -> Tensor:
    """Return the raw features of a batch, in the order of ``FEATURE_NAMES``, without a graph.

    Shapes: logits and average_logits (B, C), labels (B,), average_p_given (B,) -> (B, F).

    Example:
        >>> logits = torch.tensor([[0.0, 0.0]])
        >>> compute_features(logits, logits, torch.tensor([0]), torch.tensor([0.5])).shape
        torch.Size([1, 4])
    """
    logits_BC = logits.detach()
    losses_B = cross_entropy(logits_BC, labels, reduction="none")
    distance_B = 0.5 * (logits_BC.softmax(1) - average_logits.softmax(1)).abs().sum(1)
    margins_B = compute_margins(logits_BC, labels)
    return torch.stack((losses_B.log1p(), margins_B.asinh(), distance_B, average_p_given), dim=1)
