"""What the meta level learns, one kind a file.

| kind | class | coefficients | losses | before the first meta step |
|---|---|---|---|---|
| a network over features | ``WeightNetwork`` | (B,), 0.04 to 1.96 | the given label's | 1 |
| a logit per example | ``ExampleLogits`` | (B,), 0.005 to 1.995 | the given label's | 1 |
| a weight per source | ``SourceWeights`` | (B,), 0.04 to 1.96 | the given label's | 1 |
| a label corrector | ``LabelCorrector`` | (B, C), soft labels | one per class | the given label, 5% of the prediction |
| a weight per auxiliary loss | ``TaskWeights`` | (B, K), 1 and 0.04 to 1.96 | one per task | 1 |
| several of these | ``CombinedLearned`` | their product | of the part with its own | as its parts |

Any other function of the evidence will do: extend ``AbstractLearned``. Three things are asked of ``forward``: the
coefficients are 0 or more, autograd can differentiate them with respect to the parameters, and example i's depend on
its own evidence. Declare ``is_positive`` only where no coefficient can reach 0.

Example:
    A weight for each given class, learned as all the others are:

    >>> import torch
    >>> from torch import Tensor, nn
    >>> from sama_core.evidence import Evidence
    >>> from sama_core.learned import AbstractLearned
    >>> class ClassWeights(AbstractLearned):
    ...     kind, is_positive = "classes", True
    ...
    ...     def __init__(self, num_classes: int) -> None:
    ...         super().__init__()
    ...         self.class_logits = nn.Parameter(torch.zeros(num_classes))
    ...
    ...     def forward(self, evidence: Evidence) -> Tensor:
    ...         return self.class_logits[evidence.labels].tanh().exp()
    >>> labels = torch.tensor([0, 2])
    >>> ClassWeights(3)(Evidence(labels, labels, torch.zeros(2, 4), torch.full((2, 3), 1 / 3))).tolist()
    [1.0, 1.0]

    With loss terms of its own: the given label's loss, and a bonus for confident outputs at a learned price:

    >>> class ConfidenceBonus(AbstractLearned):
    ...     kind = "confidence"
    ...
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.price = nn.Parameter(torch.zeros(()))
    ...
    ...     def forward(self, evidence: Evidence) -> Tensor:
    ...         share = self.price.sigmoid().expand(len(evidence.rows))
    ...         return torch.stack((torch.ones_like(share), share), dim=1)
    ...
    ...     def losses(self, outputs, batch) -> Tensor:
    ...         entropy = -(outputs.softmax(1) * outputs.log_softmax(1)).sum(1)
    ...         return torch.stack((super().losses(outputs, batch), entropy), dim=1)
    >>> ConfidenceBonus()(Evidence(labels, labels, torch.zeros(2, 4), torch.full((2, 3), 1 / 3))).tolist()
    [[1.0, 0.5], [1.0, 0.5]]
"""
