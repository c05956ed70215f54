"""What the meta level learns, by name."""

from torch import Tensor

from sama_core.errors import ExamplesError
from sama_core.learned import AbstractLearned
from sama_core.meta.example_logits import ExampleLogits
from sama_core.meta.label_corrector import LabelCorrector
from sama_core.meta.source_weights import SourceWeights
from sama_core.meta.weight_network import WeightNetwork
from sama_core.types import AbstractExamples

_LEAST_ROWS_A_SOURCE = 10


def build_learned(kind: str, examples: AbstractExamples, num_features: int) -> AbstractLearned:
    """Return what is learned of some training examples; its random numbers are torch's own, seeded by the caller.

    Args:
        kind: network, logits, sources or corrector, as ``CurationOptions.learned`` names them.
        examples: the training examples.
        num_features: kinds of evidence on an example.

    Raises:
        ExamplesError: one weight per source is asked for, and the examples have no sources.

    Example:
        >>> import torch
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.zeros(3, 1), torch.tensor([0, 1, 1]))
        >>> build_learned("corrector", examples, num_features=4).kind
        'corrector'
    """
    if kind == "logits":
        return ExampleLogits(len(examples))
    if kind == "sources":
        if examples.sources is None:
            wanted = "the source of each example, since learned is 'sources'"
            raise ExamplesError(f"train.sources: none; wanted {wanted}")
        return SourceWeights(examples.sources, int(examples.sources.max()) + 1)
    if kind == "corrector":
        return LabelCorrector(num_features, examples.num_classes)
    return WeightNetwork(num_features, examples.num_classes, sources=_find_common_sources(examples))


def _find_common_sources(examples: AbstractExamples) -> Tensor | None:
    """Return the sources where there are enough rows of each, on average, to learn something of them."""
    sources = examples.sources
    if sources is None or (int(sources.max()) + 1) * _LEAST_ROWS_A_SOURCE > len(sources):
        return None
    return sources
