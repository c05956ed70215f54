"""A torch data set of (input, label) pairs as examples by row number."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from sama_core.errors import ExamplesError
from sama_core.types import AbstractExamples, Inputs, TensorExamples, check_examples


class PairDataset(Protocol):
    """What is asked of a data set: a length, and (input, label) by index."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return (input, label) of one example."""


class DatasetExamples(AbstractExamples):
    """Examples of a map-style data set whose items are (input, label).

    The labels are read once, in one pass over the data set; inputs are fetched and collated a batch at a time.

    Args:
        dataset: items (input, label); the label is a whole number.
        num_classes: C; by default the largest label plus one.

    Raises:
        ExamplesError: an item is not a pair, or a label lies outside 0..C-1.

    Example:
        >>> pairs = [(torch.zeros(2), 0), (torch.ones(2), 1)]
        >>> examples = DatasetExamples(pairs)
        >>> examples.fetch(torch.tensor([1]))
        tensor([[1., 1.]])
    """

    def __init__(self, dataset: PairDataset, num_classes: int | None = None) -> None:
        self._dataset = dataset
        self.labels = torch.tensor([_read_label(dataset, row) for row in range(len(dataset))])
        largest = int(self.labels.max()) if len(self.labels) else -1
        self.num_classes = largest + 1 if num_classes is None else num_classes
        check_examples(self, "dataset")

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return the collated inputs of these rows."""
        collated = default_collate([self._dataset[row][0] for row in rows.tolist()])
        return tuple(collated) if isinstance(collated, list) else collated


def _read_label(dataset: PairDataset, row: int) -> int:
    item = dataset[row]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ExamplesError(f"dataset: row {row} is {type(item).__name__}; wanted a pair (input, label)")
    label = item[1]
    if float(label) != int(label):
        raise ExamplesError(f"dataset: row {row} has label {label!r}; wanted a whole number")
    return int(label)


def adapt_dataset(dataset: AbstractExamples | PairDataset, num_classes: int | None = None) -> AbstractExamples:
    """Return ``dataset`` as examples: as it is, or through ``TensorExamples`` or ``DatasetExamples``.

    Raises:
        ExamplesError: the data set does not hold (input, label) pairs.

    Example:
        >>> type(adapt_dataset(TensorDataset(torch.zeros(2, 1), torch.tensor([0, 1])))).__name__
        'TensorExamples'
    """
    if isinstance(dataset, AbstractExamples):
        return dataset
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        inputs, labels = dataset.tensors
        if not labels.is_floating_point():
            return TensorExamples(inputs, labels, num_classes)
    return DatasetExamples(dataset, num_classes)
