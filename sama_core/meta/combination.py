"""Several kinds at once: the product of their coefficients."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sama_core.batch import Batch
from sama_core.errors import OptionsError
from sama_core.evidence import Evidence
from sama_core.learned import AbstractLearned


class CombinedLearned(AbstractLearned):
    """Coefficient = the product of the parts' coefficients; a part with one per example weighs all its loss terms.

    What may be combined: any number of parts that weigh the given label's loss (``WeightNetwork``, ``ExampleLogits``,
    ``SourceWeights``, a class of your own), and at most one that reads the outputs in its own way, which means that it
    overrides ``losses`` or ``logits`` (``LabelCorrector``, ``TaskWeights``, a class of your own). The loss terms are
    then those of that part: the product of two soft labels would be no label. A combination among the parts counts as
    the parts it is made of.

    Weights and soft labels together are the "R&C" of the SAMA paper: reweight and correct.

    Args:
        parts: at least one.

    Attributes:
        kind: the parts' kinds, joined.
        is_positive: True where every part is.

    Raises:
        OptionsError: no part, a part of another class, or two parts that each read the outputs in their own way.

    Example:
        >>> import torch
        >>> from sama_core.meta.label_corrector import LabelCorrector
        >>> from sama_core.meta.source_weights import SourceWeights
        >>> from sama_core.meta.weight_network import WeightNetwork
        >>> sources = SourceWeights(torch.tensor([0, 0, 1]), num_sources=2)
        >>> learned = CombinedLearned([WeightNetwork(4), sources, LabelCorrector(4, num_classes=2)])
        >>> evidence = Evidence(torch.tensor([2]), torch.tensor([0]), torch.randn(1, 4), torch.tensor([[0.2, 0.8]]))
        >>> learned.kind, learned(evidence).detach()
        ('network x sources x corrector', tensor([[0.9621, 0.0379]]))

    References:
        Choe et al., Making Scalable Meta Learning Practical, NeurIPS 2023, arXiv:2310.05674.
    """

    def __init__(self, parts: Sequence[AbstractLearned]) -> None:
        super().__init__()
        flat = _flatten(parts)
        owners = [part for part in flat if _reads_outputs(part)]
        if len(owners) > 1:
            names = " and ".join(f"{type(part).__name__} ({part.kind})" for part in owners)
            raise OptionsError(f"parts: {names} each read the outputs in their own way; wanted at most one such part")
        self.parts = nn.ModuleList(flat)
        self._owner = flat.index(owners[0]) if owners else 0
        self.kind = " x ".join(part.kind for part in flat)
        self.is_positive = all(part.is_positive for part in flat)

    def forward(self, evidence: Evidence) -> Tensor:
        """Return the products.

        Shapes: -> (B,), or (B, K) where a part gives (B, K).

        Raises:
            OptionsError: two parts give different numbers of coefficients an example.
        """
        factors = [part(evidence) for part in self.parts]
        widths = {factor.shape[1] for factor in factors if factor.dim() == 2}
        if len(widths) > 1:
            seen = ", ".join(f"{part.kind} {tuple(f.shape)}" for part, f in zip(self.parts, factors, strict=True))
            raise OptionsError(f"parts: coefficients of shapes {seen}; wanted one number of terms an example")
        if widths:
            factors = [factor if factor.dim() == 2 else factor.unsqueeze(1) for factor in factors]
        product: Tensor = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss terms of the part that brings its own, else the given label's loss.

        Shapes: -> (B,) or (B, K).
        """
        return self._find_owner().losses(outputs, batch)

    def logits(self, outputs: Any) -> Tensor:
        """Return the class scores as the same part finds them.

        Shapes: -> (B, C).
        """
        return self._find_owner().logits(outputs)

    def summarise(self, coefficients: Tensor, labels: Tensor) -> Tensor:
        """Return the weight that is reported of each example, as the same part finds it.

        Shapes: coefficients as ``forward`` gave them, labels (B,) -> (B,).
        """
        return self._find_owner().summarise(coefficients, labels)

    def _find_owner(self) -> AbstractLearned:
        owner = self.parts[self._owner]
        assert isinstance(owner, AbstractLearned)
        return owner


def _reads_outputs(part: AbstractLearned) -> bool:
    kind = type(part)
    return kind.losses is not AbstractLearned.losses or kind.logits is not AbstractLearned.logits


def _flatten(parts: Sequence[AbstractLearned]) -> list[AbstractLearned]:
    flat: list[AbstractLearned] = []
    for index, part in enumerate(parts):
        if not isinstance(part, AbstractLearned):
            raise OptionsError(f"parts[{index}]: {type(part).__name__}; wanted an AbstractLearned")
        flat += _flatten(list(part.parts)) if isinstance(part, CombinedLearned) else [part]  # type: ignore[arg-type]
    if not flat:
        raise OptionsError("parts: none; wanted at least one")
    return flat
