"""P(true label = c | evidence): a conditional logit, fitted on trusted examples.

Shape suffixes: N examples, M trusted ones, C classes, F kinds of class evidence, H of given-label evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sama_core.detection.fitting import minimise
from sama_core.randomness import permute
from sama_core.types import JSON

_NUM_FOLDS = 5
_TRUST_STRENGTH = 3.0
_CLASS_STRENGTH = 1.0


@dataclass(frozen=True)
class Findings:
    """The evidence on N examples, double precision on the CPU.

    Attributes:
        by_class: (N, C, F), log-probability of each class under each of F witnesses.
        of_given: (N, H), facts about the given label, standardised.
        given: int64 (N,), the given labels, -1 where there is none: nothing of ``of_given`` is used then.
    """

    by_class: Tensor
    of_given: Tensor
    given: Tensor

    def take(self, rows: Tensor) -> "Findings":
        """Return the evidence on some rows."""
        return Findings(self.by_class[rows], self.of_given[rows], self.given[rows])


@dataclass(frozen=True)
class Detector:
    """A fitted detector. The utility of class c for an example with given label g is

        sum_f trust_f * by_class[c, f] + bias_c + 1{c = g} * (loyalty + sum_h credit_h * of_given[h] + class_loyalty_g)

    and the probability that c is the true label its softmax over the classes.

    Attributes:
        trust: (F,), how far each kind of class evidence is believed.
        credit: (H + 1,), what speaks for the given label; the constant first.
        class_loyalty: (C,), for each given class.
        bias: (C,), for each class.
    """

    trust: Tensor
    credit: Tensor
    class_loyalty: Tensor
    bias: Tensor

    def judge(self, findings: Findings) -> Tensor:
        """Return the probability of each class to be the true label (N, C).

        Example:
            >>> findings = Findings(
            ...     torch.zeros(1, 2, 1).double(), torch.zeros(1, 0).double(), torch.tensor([1])
            ... )
            >>> detector = Detector(*(torch.ones(n).double() for n in (1, 1)), torch.zeros(2), torch.zeros(2))
            >>> detector.judge(findings).argmax(1).item()
            1
        """
        return _add_up(findings, (self.trust, self.credit, self.class_loyalty, self.bias)).softmax(1)


def fit_detector(findings: Findings, truth: Tensor) -> Detector:
    """Return the detector under which the trusted labels are likeliest, a little evidence being needed to move it.

    It starts from believing every kind of class evidence in equal parts, adding up to 1.5, and nothing else; the prior
    that holds it there counts as 3 squared units a coefficient (1 for those of single classes), against the sum over
    the M examples. The problem is convex.

    Args:
        findings: on M trusted examples; no model behind them may have seen the trusted label of the example it judges.
        truth: int64 (M,), the trusted labels.

    Example:
        Two witnesses; the trusted labels show that the first is right and the second is not:

        >>> truth = torch.tensor([0, 1] * 50)
        >>> right = torch.nn.functional.one_hot(truth, 2).double() * 4 - 2
        >>> findings = Findings(torch.stack((right, -right), 2), torch.zeros(100, 0).double(), 1 - truth)
        >>> detector = fit_detector(findings, truth)
        >>> bool(detector.trust[0] > 0.5 > detector.trust[1])
        True
    """
    _, num_classes, num_kinds = findings.by_class.shape
    prior_F = torch.full((num_kinds,), 1.5 / num_kinds, dtype=torch.float64)
    trust_F = prior_F.clone().requires_grad_()
    credit_H, loyalty_C, bias_C = (
        torch.zeros(size, dtype=torch.float64, requires_grad=True)
        for size in (findings.of_given.shape[1] + 1, num_classes, num_classes)
    )
    parts = (trust_F, credit_H, loyalty_C, bias_C)

    def loss() -> Tensor:
        misfit = cross_entropy(_add_up(findings, parts), truth, reduction="sum")
        moved = (trust_F - prior_F).square().sum() + credit_H.square().sum()
        return misfit + _TRUST_STRENGTH * moved + _CLASS_STRENGTH * (loyalty_C.square().sum() + bias_C.square().sum())

    minimise(loss, parts)
    return Detector(*(part.detach() for part in parts))


@dataclass(frozen=True)
class HeldOutDetectors:
    """One detector a fold of the trusted examples, fitted on the other folds.

    Attributes:
        detectors: (K,).
        folds: (M,) fold of each trusted example, 0..K-1.
    """

    detectors: Sequence[Detector]
    folds: Tensor

    def judge(self, findings: Findings, folds: Tensor, others: Tensor) -> Tensor:
        """Return the probability of each class (N, C), that of each example of a fold by the detector without the fold.

        Shapes: folds int64 (N,), -1 where an example is of none; others (N, C), the probabilities of these.
        """
        judged_NC = others.clone()
        for fold, detector in enumerate(self.detectors):
            held = torch.nonzero(folds == fold).flatten()
            judged_NC[held] = detector.judge(findings.take(held))
        return judged_NC


def fit_held_out(findings: Findings, truth: Tensor, groups: Tensor, seed: int) -> HeldOutDetectors:
    """Return the detectors by which the trusted examples themselves are judged, five of them where there are as many.

    Examples of one group share a fold. The folds are drawn without a look at the labels. Folds of equal class
    frequencies would give away the frequencies of the fold that is left out: with random labels in 8 classes they found
    wrong ones with an AUROC of 0.56.

    Args:
        findings: on M trusted examples, as for ``fit_detector``.
        truth: int64 (M,), the trusted labels.
        groups: int64 (M,), ascending by first member; those of examples of the same content are equal.
        seed: of the folds.

    Example:
        Two examples that only their own labels could tell apart:

        >>> findings = Findings(torch.zeros(2, 2, 1).double(), torch.zeros(2, 0).double(), torch.tensor([0, 0]))
        >>> fitted = fit_held_out(findings, torch.tensor([0, 1]), torch.arange(2), seed=0)
        >>> fitted.judge(findings, fitted.folds, torch.zeros(2, 2).double()).argmax(1).tolist()
        [1, 0]
    """
    distinct, place_M = torch.unique(groups, return_inverse=True)
    folds_M = (permute(len(distinct), seed, "held-out-folds") % min(_NUM_FOLDS, len(distinct)))[place_M]
    detectors = []
    for fold in range(int(folds_M.max()) + 1):
        taught = torch.nonzero(folds_M != fold).flatten()
        detectors.append(fit_detector(findings.take(taught), truth[taught]))
    return HeldOutDetectors(detectors, folds_M)


def measure_reliability(probabilities: Tensor, given: Tensor, truth: Tensor) -> list[JSON]:
    """Return, for the examples scored below 0.5 and for the others, how many they are, what they are scored, and truly.

    Args:
        probabilities: (M, C) of each class.
        given: int64 (M,), the labels whose noise score, 1 minus their probability, is looked at.
        truth: int64 (M,).

    Example:
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
        >>> found = measure_reliability(probabilities, torch.tensor([0, 0]), torch.tensor([0, 1]))
        >>> found[0], found[1]["count"]
        ({'low': 0.0, 'high': 0.5, 'count': 2, 'mean_noise_score': 0.15, 'share_wrong': 0.5}, 0)
    """
    noise_M = 1.0 - probabilities.double().gather(1, given.unsqueeze(1)).squeeze(1)
    wrong_M = (given != truth).double()
    found: list[JSON] = []
    for low, members in ((0.0, noise_M < 0.5), (0.5, noise_M >= 0.5)):
        count = int(members.sum())
        score, wrong = (round(float(of[members].mean()), 6) if count else None for of in (noise_M, wrong_M))
        found.append({"low": low, "high": low + 0.5, "count": count, "mean_noise_score": score, "share_wrong": wrong})
    return found


def _add_up(findings: Findings, parts: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return the utilities (N, C)."""
    trust_F, credit_H, loyalty_C, bias_C = parts
    utility_NC = findings.by_class @ trust_F + bias_C
    given_N = findings.given.clamp_min(0)
    credit_N = credit_H[0] + findings.of_given @ credit_H[1:] + loyalty_C[given_N]
    credit_N = credit_N * (findings.given >= 0)
    return utility_NC.scatter_add(1, given_N.unsqueeze(1), credit_N.unsqueeze(1))
