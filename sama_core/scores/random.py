"""The baseline that knows nothing: a random score."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sama_core.checkpoint import check_header
from sama_core.decisions import Decisions, make_decisions
from sama_core.errors import UnfinishedError
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.randomness import make_generator
from sama_core.types import JSON, AbstractExamples, StepReport, check_examples


@dataclass
class RandomState:
    """Nothing happens between init and finish."""

    examples: AbstractExamples


class RandomMethod(AbstractMethod[RandomState]):
    """A seeded uniform score; no training, hence no steps. noise_score = 1 - score; the given label is suggested.

    Args:
        options: the seed is used.
    """

    name = "random"

    def __init__(self, options: CurationOptions) -> None:
        self.options = options

    def init(
        self,
        network: nn.Module,  # noqa: ARG002 - the contract's signature
        train: AbstractExamples,
        meta: AbstractExamples | None = None,  # noqa: ARG002 - the contract's signature
        device: torch.device | str = "cpu",  # noqa: ARG002 - the contract's signature
    ) -> RandomState:
        """Return the state; neither network nor meta set is used."""
        check_examples(train, "train")
        return RandomState(train)

    def step(self, state: RandomState) -> StepReport:
        """Refuse: there are no steps.

        Raises:
            UnfinishedError: always.
        """
        raise UnfinishedError(f"step: random has no steps for its {len(state.examples)} examples; call finish")

    def is_done(self, state: RandomState) -> bool:  # noqa: ARG002 - the contract's signature
        """Return True."""
        return True

    def finish(self, state: RandomState) -> Decisions:
        """Return random decisions, a function of the seed and the number of examples alone."""
        examples = state.examples
        generator = make_generator(self.options.seed, "random-score")
        scores_N = torch.rand(len(examples), generator=generator, dtype=torch.float64)
        labels_N1 = examples.labels.unsqueeze(1)
        # a hair above uniform for the given label, so that it is the one suggested
        even_NC = torch.full((len(examples), examples.num_classes), 1.0 / examples.num_classes)
        even_NC.scatter_add_(1, labels_N1, torch.full((len(examples), 1), 1e-6))
        facts: dict[str, JSON] = {"num_base_steps": 0}
        return make_decisions(self.name, even_NC, scores=scores_N, noise_scores=1.0 - scores_N, facts=facts)

    def export(self, state: RandomState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return no tensors, and what they belong to."""
        return {}, describe_origin(self.name, self.options, state.examples, 0)

    def restore(
        self,
        state: RandomState,
        tensors: Mapping[str, Tensor],  # noqa: ARG002 - the contract's signature
        values: Mapping[str, JSON],
    ) -> None:
        """Check where the checkpoint comes from; there is nothing to put back."""
        check_header(values, describe_origin(self.name, self.options, state.examples, 0))
