"""The trusted examples as the baselines use them: which training rows they are, and what label was delivered.

Shape suffixes: N training examples, M trusted ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sama_core.errors import ExamplesError, OptionsError
from sama_core.scores.folds import assign_folds
from sama_core.types import AbstractExamples, check_examples

NUM_FOLDS = 5
_LEAST_STEPS = 500


@dataclass(frozen=True)
class TrustedRows:
    """What is known of M trusted examples.

    Attributes:
        examples: they themselves.
        train_rows: int64 (M,), the same example's row among the training examples, -1 where it is none of them.
        given: int64 (M,), the label that the data delivered, -1 where unknown.
    """

    examples: AbstractExamples
    train_rows: Tensor
    given: Tensor

    @property
    def overlap(self) -> bool:
        """True where a trusted example is itself a training example."""
        return bool((self.train_rows >= 0).any())

    def assign(self, num_folds: int, seed: int) -> Tensor:
        """Return the fold of each trusted example (M,)."""
        return assign_folds(self.examples.labels, min(num_folds, len(self.given)), seed, "trusted-folds")

    def find_fold_of_rows(self, folds: Tensor, num_rows: int) -> Tensor:
        """Return, for each training row, the fold of its trusted copy, -1 where it has none. Shapes: (M,) -> (N,)."""
        fold_of_row_N = torch.full((num_rows,), -1, dtype=torch.int64)
        inside = self.train_rows >= 0
        fold_of_row_N[self.train_rows[inside]] = folds[inside]
        return fold_of_row_N


def read_trusted(train: AbstractExamples, meta: AbstractExamples | None, method: str) -> TrustedRows:
    """Return what is known of the trusted examples, checked.

    Args:
        train: the training examples.
        meta: the trusted ones.
        method: named in the messages.

    Raises:
        OptionsError: there are none.
        ExamplesError: fewer than two, another number of classes, or rows or labels that do not fit.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))
        >>> read_trusted(examples, examples, "trusted-model").overlap
        False
        >>> read_trusted(examples, None, "trusted-model")
        Traceback (most recent call last):
        ...
        sama_core.errors.OptionsError: meta: none; method trusted-model learns from trusted examples: wanted a meta set
    """
    if meta is None:
        raise OptionsError(f"meta: none; method {method} learns from trusted examples: wanted a meta set")
    check_examples(meta, "meta")
    if meta.num_classes != train.num_classes:
        raise ExamplesError(f"meta.num_classes: {meta.num_classes}; wanted {train.num_classes}, as train has")
    if len(meta) < 2:
        raise ExamplesError(f"meta: {len(meta)} example; method {method} wants at least 2")
    unknown_M = torch.full((len(meta),), -1, dtype=torch.int64)
    rows_M = _check(meta.train_rows, "train_rows", len(meta), len(train)) if meta.train_rows is not None else unknown_M
    given_M = unknown_M.clone()
    given_M[rows_M >= 0] = train.labels[rows_M[rows_M >= 0]]
    if meta.given_labels is not None:
        delivered_M = _check(meta.given_labels, "given_labels", len(meta), train.num_classes)
        given_M = torch.where(delivered_M >= 0, delivered_M, given_M)
    return TrustedRows(meta, rows_M, given_M)


def _check(numbers: Tensor, name: str, num_wanted: int, end: int) -> Tensor:
    if numbers.shape != (num_wanted,) or int(numbers.min()) < -1 or int(numbers.max()) >= end:
        seen = f"shape {tuple(numbers.shape)}, {int(numbers.min())}..{int(numbers.max())}"
        raise ExamplesError(f"meta.{name}: {seen}; wanted shape ({num_wanted},), each from -1 to {end - 1}")
    return numbers.to(torch.int64).cpu()


def choose_trusted_steps(own: int, whole: int) -> int:
    """Return the steps of a training on trusted examples alone.

    As many as its epochs take, but at least 500, since a small meta set in the usual epochs is hardly learned from,
    and never more than the training on all the data takes.

    Args:
        own: steps of the usual epochs over the trusted examples.
        whole: steps of the usual epochs over all training examples.

    Example:
        >>> choose_trusted_steps(40, 4000), choose_trusted_steps(40, 60), choose_trusted_steps(700, 4000)
        (500, 60, 700)
    """
    return max(1, min(whole, max(own, _LEAST_STEPS)))
