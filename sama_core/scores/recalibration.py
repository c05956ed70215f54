"""From a model's probabilities and the given label to the probability of each true label.

Shape suffixes: M examples, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_STRENGTH = 5.0  # examples that the prior of a class's confusion counts as
_SHARPNESS = tuple(2.0 ** (step / 4) for step in range(-20, 9))
_TRUST = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_LEAST = 1e-7


@dataclass(frozen=True)
class Recalibration:
    """p(true = c | p, given = g) proportional to p_c ^ sharpness * P(given = g | true = c) ^ trust.

    Attributes:
        sharpness: one over the temperature of the model.
        trust: how far the confusion is believed; 0 leaves the given label out.
        log_confusion: (C, C), log P(given = column | true = row).
    """

    sharpness: float
    trust: float
    log_confusion: Tensor

    def apply(self, probabilities: Tensor, given: Tensor) -> Tensor:
        """Return the probability of each true label (M, C), double precision.

        Shapes: probabilities (M, C), given (M,), -1 where unknown.
        """
        return _combine(probabilities, _look_up(self.log_confusion, given), self.sharpness, self.trust).exp()


def fit_recalibration(probabilities: Tensor, given: Tensor, truth: Tensor) -> Recalibration:
    """Return the recalibration under which the true labels are likeliest.

    The confusion is counted, with a prior worth 5 examples a class: the given label is right as often as over all
    classes, else any other. Sharpness and trust are the best of a grid, each example judged by counts without itself.

    Shapes: probabilities (M, C) of models that did not see the example; given (M,), -1 where unknown; truth (M,).

    Example:
        >>> given = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1] * 5)
        >>> truth = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1] * 5)
        >>> fitted = fit_recalibration(torch.full((40, 2), 0.5), given, truth)
        >>> fitted.apply(torch.tensor([[0.5, 0.5]]), torch.tensor([0])).argmax().item()
        0
    """
    known = given >= 0
    num_classes = probabilities.shape[1]
    counts_CC = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    ones = torch.ones(int(known.sum()), dtype=torch.float64)
    counts_CC.index_put_((truth[known], given[known]), ones, accumulate=True)
    confusion_CC, prior_CC = _smooth(counts_CC)
    evidence_MC = _look_up(confusion_CC.log(), given)
    rows, own, seen = torch.nonzero(known).flatten(), truth[known], given[known]
    others = counts_CC[own, seen] - 1.0 + _STRENGTH * prior_CC[own, seen]
    evidence_MC[rows, own] = (others / (counts_CC[own].sum(1) - 1.0 + _STRENGTH)).log()
    trusts = _TRUST if bool(known.any()) else (0.0,)
    return _search(probabilities, evidence_MC, truth, confusion_CC.log(), trusts)


def _smooth(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the confusion (C, C) of counts, and the prior towards which it is smoothed; each row adds up to 1."""
    num_classes = len(counts)
    right = float((counts.diagonal().sum() + 1.0) / (counts.sum() + 2.0))
    prior_CC = torch.full_like(counts, (1.0 - right) / (num_classes - 1)).fill_diagonal_(right)
    return (counts + _STRENGTH * prior_CC) / (counts.sum(1, keepdim=True) + _STRENGTH), prior_CC


def _look_up(log_confusion: Tensor, given: Tensor) -> Tensor:
    """Return log P(given | true = c) for each example (M, C), 0 where the given label is unknown."""
    evidence_MC: Tensor = log_confusion.T[given.clamp_min(0)]
    return evidence_MC * (given >= 0).unsqueeze(1)


def _combine(probabilities: Tensor, evidence: Tensor, sharpness: float, trust: float) -> Tensor:
    logs_MC = probabilities.double().clamp_min(_LEAST).log()
    return (sharpness * logs_MC + trust * evidence).log_softmax(1)


def _search(
    probabilities: Tensor, evidence: Tensor, truth: Tensor, log_confusion: Tensor, trusts: tuple[float, ...]
) -> Recalibration:
    def judge(sharpness: float, trust: float) -> float:
        logs_MC = _combine(probabilities, evidence, sharpness, trust)
        return float(logs_MC.gather(1, truth.unsqueeze(1)).mean())

    grid = [(sharpness, trust) for sharpness in _SHARPNESS for trust in trusts]
    sharpness, trust = max(grid, key=lambda pair: judge(*pair))
    return Recalibration(sharpness, trust, log_confusion)
