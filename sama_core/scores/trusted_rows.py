"""The trusted examples as the baselines use them: which training rows they are, and what label was delivered.

Shape suffixes: N training examples, M trusted ones, U unlabelled ones.
"""

from dataclasses import dataclass

import numpy as np
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

    A group is all examples of the same content, and is named by its first trusted example, 0..M-1.

    Attributes:
        examples: they themselves.
        train_rows: int64 (M,), the same example's row among the training examples, -1 where it is none of them.
        given: int64 (M,), the label that the data delivered, -1 where unknown.
        groups: int64 (M,), the group of each; 0..M-1 where no two are equal.
        train_groups: int64 (N,), the group of each training example, -1 where it equals no trusted one.
        unlabelled_groups: int64 (U,), the same of the unlabelled examples; None where there are none.
    """

    examples: AbstractExamples
    train_rows: Tensor
    given: Tensor
    groups: Tensor
    train_groups: Tensor
    unlabelled_groups: Tensor | None = None

    @property
    def overlap(self) -> bool:
        """True where a trusted example is itself a training example."""
        return bool((self.train_groups >= 0).any())

    def count_folds(self, wanted: int) -> int:
        """Return how many folds there are: as many as wanted, or one for each group where there are fewer."""
        return min(wanted, len(torch.unique(self.groups)))

    def assign(self, num_folds: int, seed: int) -> Tensor:
        """Return the fold of each trusted example (M,); equal ones share one."""
        firsts, place_M = torch.unique(self.groups, return_inverse=True)
        folds = assign_folds(self.examples.labels[firsts], self.count_folds(num_folds), seed, "trusted-folds")
        return folds[place_M]

    def find_fold_of_rows(self, folds: Tensor) -> Tensor:
        """Return, for each training row, the fold of its trusted copies, -1 where it has none. Shapes: (M,) -> (N,)."""
        return find_folds(folds, self.train_groups)


def find_folds(folds: Tensor, groups: Tensor) -> Tensor:
    """Return the fold of the trusted examples that each example equals, -1 where it equals none.

    Args:
        folds: int64 (M,), of each trusted example.
        groups: int64, the group of each example, -1 of those that equal no trusted one; of any shape.

    Example:
        >>> find_folds(torch.tensor([1, 0, 2]), torch.tensor([-1, 2, 0, 2]))
        tensor([-1,  2,  1,  2])
    """
    return torch.where(groups >= 0, folds[groups.clamp_min(0)], -1)


def read_trusted(train: AbstractExamples, meta: AbstractExamples | None, method: str) -> TrustedRows:
    """Return what is known of the trusted examples, checked.

    Args:
        train: the training examples.
        meta: the trusted ones.
        method: named in the messages.

    Raises:
        OptionsError: there are none.
        ExamplesError: fewer than two different ones, another number of classes, or rows, labels or groups that do not
            fit.

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
    return TrustedRows(meta, rows_M, given_M, *_group(train, meta, rows_M, method))


def _group(
    train: AbstractExamples, meta: AbstractExamples, rows: Tensor, method: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the groups of the trusted, the training and the unlabelled examples."""
    numbers_M, numbers_N = _read_groups(meta, "meta"), _read_groups(train, "train")
    start = int(torch.cat([numbers_M, numbers_N]).max()) + 1
    own_M = start + torch.where(rows >= 0, rows, len(train) + torch.arange(len(meta)))
    numbers_M = torch.where(numbers_M >= 0, numbers_M, own_M)
    numbers_N[rows[rows >= 0]] = numbers_M[rows >= 0]
    distinct, firsts, places = np.unique(numbers_M.numpy(), return_index=True, return_inverse=True)
    if len(distinct) < 2:
        raise ExamplesError(f"meta: {len(meta)} examples, all equal; method {method} wants at least 2 different ones")

    def match(numbers: Tensor) -> Tensor:
        at = np.minimum(np.searchsorted(distinct, numbers.numpy()), len(distinct) - 1)
        return torch.from_numpy(np.where(distinct[at] == numbers.numpy(), firsts[at], -1))

    unlabelled = None if train.unlabelled is None else match(_read_groups(train.unlabelled, "train.unlabelled"))
    return torch.from_numpy(firsts[places]), match(numbers_N), unlabelled


def _read_groups(examples: AbstractExamples, name: str) -> Tensor:
    if examples.groups is None:
        return torch.full((len(examples),), -1, dtype=torch.int64)
    if examples.groups.shape != (len(examples),):
        raise ExamplesError(f"{name}.groups: shape {tuple(examples.groups.shape)}; wanted ({len(examples)},)")
    return examples.groups.to(torch.int64).cpu().clone()


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
