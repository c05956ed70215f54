"""A soft label in place of the given one.

Shape suffixes: B examples of a batch, C classes, F features, W units of the hidden layer.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sama_core.batch import Batch
from sama_core.evidence import Evidence
from sama_core.learned import AbstractLearned
from sama_core.losses import class_losses
from sama_core.meta.arguments import check_count
from sama_core.meta.bounds import bound_logits

_START, _REACH = -3.0, 6.0
_SHARPEST = 4.0
_SUREST = 1e-6


class LabelCorrector(AbstractLearned):
    """Soft label y_i = (1 - a_i) onehot(g_i) + a_i q_i of the given label g_i and of what the network predicts.

    - ``a_i``, the doubt about the given label, is sigmoid(MLP(features, given class)): 0.0001 to 0.95, and 0.05 before
      the first meta step, where its derivative is far from 0. Almost plain training, then, is where it starts.
    - ``q_i``, the label in its stead, has q_ic proportional to p_ic^t exp(M[g_i, c]): the posterior of the true class
      where p is the prior and exp(M[g, c]) the share of class c that is delivered as g. The sharpness t (1/4 to 4) and
      the confusion M (each entry within 6) are learned; at the start t = 1, M = 0, q = p.

    M and t are what makes this a correction. With q = p, the network's own prediction at the same step, the gradient
    with respect to the logits is p - y = (1 - a) (p - onehot(g)): that of a weight 1 - a, no more.

    The predictions are constants, as all evidence is. M has C^2 numbers; with more than about a thousand classes leave
    it out.

    Args:
        num_features: F.
        num_classes: C.
        width: units of the one hidden layer.
        confusion: learn M.

    Raises:
        OptionsError: ``num_features`` or ``width`` is no whole number of at least 1, or ``num_classes`` of at least 2.

    Example:
        >>> corrector = LabelCorrector(num_features=4, num_classes=2)
        >>> predictions = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> evidence = Evidence(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.randn(2, 4), predictions)
        >>> corrector.correct(evidence)
        tensor([[0.9953, 0.0047],
                [0.9621, 0.0379]])

    References:
        Choe et al., Making Scalable Meta Learning Practical, NeurIPS 2023, arXiv:2310.05674 (reweighting and label
        correction together); Zheng et al., Meta Label Correction for Noisy Label Learning, AAAI 2021 (a corrector
        trained by a meta loss); Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR
        2015 workshop, arXiv:1412.6596 (the mixture with a constant a); Patrini et al., Making Deep Neural Networks
        Robust to Label Noise, CVPR 2017 (the confusion of classes).
    """

    kind = "corrector"

    def __init__(self, num_features: int, num_classes: int, width: int = 32, *, confusion: bool = True) -> None:
        super().__init__()
        check_count("num_features", num_features)
        check_count("num_classes", num_classes, lowest=2)
        check_count("width", width)
        self.num_classes = num_classes
        self.hidden = nn.Linear(num_features, width)
        self.classes = nn.Embedding(num_classes, width)
        self.output = nn.Linear(width, 1)
        self.sharpness = nn.Parameter(torch.zeros(()))
        self.confusion = nn.Parameter(torch.zeros(num_classes, num_classes)) if confusion else None
        for param in (self.classes.weight, self.output.weight, self.output.bias):
            nn.init.zeros_(param)

    def forward(self, evidence: Evidence) -> Tensor:
        """Return the soft labels, the coefficients of ``losses``.

        Shapes: features (B, F), labels (B,), predictions (B, C) -> (B, C), each row a distribution.
        """
        doubt_B1 = self._doubt(evidence)
        given_BC = one_hot(evidence.labels, self.num_classes).to(doubt_B1.dtype)
        return given_BC + doubt_B1 * (self._replace(evidence) - given_BC)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return minus the log-probability of every class.

        Shapes: outputs (B, C) -> (B, C).
        """
        return class_losses(outputs, batch)

    def summarise(self, coefficients: Tensor, labels: Tensor) -> Tensor:
        """Return what the given label keeps of each soft label: the loss multiplier of the label that was delivered.

        Shapes: coefficients (B, C), labels (B,) -> (B,).
        """
        return coefficients.gather(1, labels.unsqueeze(1)).squeeze(1)

    @torch.no_grad()
    def correct(self, evidence: Evidence) -> Tensor:
        """Return the soft labels, without a graph.

        Shapes: features (B, F), labels (B,), predictions (B, C) -> (B, C), each row a distribution.
        """
        return self.forward(evidence)

    def _doubt(self, evidence: Evidence) -> Tensor:
        units_BW = torch.tanh(self.hidden(evidence.features) + self.classes(evidence.labels))
        return torch.sigmoid(_START + bound_logits(self.output(units_BW), _REACH))

    def _replace(self, evidence: Evidence) -> Tensor:
        power = bound_logits(self.sharpness, math.log(_SHARPEST)).exp()
        logits_BC = power * evidence.predictions.clamp_min(_SUREST).log()
        if self.confusion is not None:
            logits_BC = logits_BC + bound_logits(self.confusion[evidence.labels], _REACH)
        return logits_BC.softmax(1)
