"""Examples seen otherwise: with other labels, some of them, or two data sets as one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sama_core.errors import ExamplesError
from sama_core.types import AbstractExamples, Inputs, list_tensors, map_inputs


class RelabelledExamples(AbstractExamples):
    """The examples of a data set under other labels.

    Args:
        examples: N examples; not edited.
        labels: int64 (N,), each 0..C-1.

    Raises:
        ExamplesError: another number of labels.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([0, 1]))
        >>> RelabelledExamples(examples, torch.tensor([1, 1])).labels
        tensor([1, 1])
    """

    def __init__(self, examples: AbstractExamples, labels: Tensor) -> None:
        if labels.shape != (len(examples),):
            raise ExamplesError(f"labels: shape {tuple(labels.shape)}; wanted ({len(examples)},)")
        self._examples = examples
        self.labels, self.num_classes = labels.to(torch.int64).cpu(), examples.num_classes
        self.sources, self.votes, self.groups = examples.sources, examples.votes, examples.groups

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return the inputs of these rows."""
        return self._examples.fetch(rows)


class SubsetExamples(AbstractExamples):
    """Some examples of a data set, in an order of their own.

    Args:
        examples: N examples; not edited.
        rows: int64 (M,), each 0..N-1.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> subset = SubsetExamples(TensorExamples(torch.eye(2), torch.tensor([0, 1])), torch.tensor([1]))
        >>> subset.labels, subset.fetch(torch.tensor([0]))
        (tensor([1]), tensor([[0., 1.]]))
    """

    def __init__(self, examples: AbstractExamples, rows: Tensor) -> None:
        self._examples, self._rows = examples, rows.to(torch.int64).cpu()
        self.labels, self.num_classes = examples.labels[self._rows], examples.num_classes
        self.votes = None if examples.votes is None else examples.votes[self._rows]

    def __len__(self) -> int:
        """Return M."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return the inputs of these rows of the subset."""
        return self._examples.fetch(self._rows[rows])


class JoinedExamples(AbstractExamples):
    """Two data sets as one: the rows of the first, then those of the second.

    Sources, where the first have them, stay; the rows of the second share one more source. Votes stay where both have
    those of the same number of labelling functions.

    Inputs whose sizes differ (lists as long as the longest of their batch) are padded with zeros at the end.

    Args:
        first: N examples.
        second: M examples with the same classes and the same kind of inputs.

    Raises:
        ExamplesError: they count different classes.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> first = TensorExamples(torch.ones(2, 1), torch.tensor([0, 1]))
        >>> second = TensorExamples(torch.full((1, 2), 5.0), torch.tensor([1]), num_classes=2)
        >>> JoinedExamples(first, second).fetch(torch.tensor([2, 0]))
        tensor([[5., 5.],
                [1., 0.]])
    """

    def __init__(self, first: AbstractExamples, second: AbstractExamples) -> None:
        if first.num_classes != second.num_classes:
            raise ExamplesError(f"num_classes: {second.num_classes}; wanted {first.num_classes}, as the first have")
        self._first, self._second = first, second
        self.labels, self.num_classes = torch.cat([first.labels, second.labels]), first.num_classes
        if first.sources is not None:
            added = torch.full((len(second),), int(first.sources.max()) + 1)
            self.sources = torch.cat([first.sources, added])
        if first.votes is not None and second.votes is not None and first.votes.shape[1] == second.votes.shape[1]:
            self.votes = torch.cat([first.votes, second.votes])

    def __len__(self) -> int:
        """Return N + M."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return the inputs of these rows, in their order."""
        size = len(self._first)
        places = [torch.nonzero(rows < size).flatten(), torch.nonzero(rows >= size).flatten()]
        if len(places[1]) == 0:
            return self._first.fetch(rows)
        if len(places[0]) == 0:
            return self._second.fetch(rows - size)
        fetched = [self._first.fetch(rows[places[0]]), self._second.fetch(rows[places[1]] - size)]
        order = torch.argsort(torch.cat(places))
        columns = zip(*(list_tensors(inputs) for inputs in fetched), strict=True)
        joined = iter([_stack(column)[order] for column in columns])
        return map_inputs(fetched[0], lambda _tensor: next(joined))


def _stack(parts: Sequence[Tensor]) -> Tensor:
    longest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    return torch.cat([_pad_end(part, longest) for part in parts])


def _pad_end(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the tensor with zeros after the end of each dimension but the first, up to ``sizes``."""
    if list(tensor.shape[1:]) == list(sizes):
        return tensor
    missing = [wanted - seen for wanted, seen in zip(sizes, tensor.shape[1:], strict=True)]
    return pad(tensor, [amount for size in reversed(missing) for amount in (0, size)])
