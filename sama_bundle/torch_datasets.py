"""Indexed data sets of torch: the kept examples, the same with their weights, and the collate that hands weights on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, default_collate

from sama_bundle.errors import UnreadableSourceError
from sama_bundle.reading import Positions
from sama_core.sampler import WeightedSampler

Relabel = Callable[[Any, int], Any]
Collate = Callable[[list[Any]], Any]

WEIGHT = "weight"


class WeightedExample(NamedTuple):
    """An example as the data set gives it, and its loss weight."""

    example: Any
    weight: float


class KeptExamples(Dataset[Any]):
    """The examples to train on, in input order.

    Args:
        dataset: indexed by position.
        positions: of the kept examples.
        codes: the label to train on of each of them, as class code 0..C-1.
        relabel: puts such a code into an example; None leaves the examples as they are.
    """

    def __init__(
        self, dataset: Any, positions: Positions, codes: npt.NDArray[np.int64], relabel: Relabel | None
    ) -> None:
        self._dataset, self._positions = dataset, positions
        self._codes, self._relabel = codes, relabel

    def __len__(self) -> int:
        """Return how many examples are kept."""
        return len(self._positions)

    def __getitem__(self, index: int) -> Any:
        """Return a kept example."""
        example = self._dataset[int(self._positions[index])]
        return example if self._relabel is None else self._relabel(example, int(self._codes[index]))


class WeightedExamples(Dataset[WeightedExample]):
    """Kept examples, each with its loss weight; for a loader with `WeightCollate`."""

    def __init__(self, examples: KeptExamples, weights: npt.NDArray[np.float32]) -> None:
        self._examples = examples
        self._weights = weights

    def __len__(self) -> int:
        """Return how many examples are kept."""
        return len(self._weights)

    def __getitem__(self, index: int) -> WeightedExample:
        """Return a kept example and its weight."""
        return WeightedExample(self._examples[index], float(self._weights[index]))


class WeightCollate:
    """Makes a batch of weighted examples, with the weights (float32) in it, so that `(loss * weight).mean()` is right.

    A batch of pairs (inputs, labels) becomes (inputs, labels, weight); a mapping gains `weight`; anything else
    becomes a pair (batch, weight).

    Args:
        inner: makes a batch of the examples alone; None takes torch's own way.
    """

    def __init__(self, inner: Collate | None = None) -> None:
        self._inner: Collate = default_collate if inner is None else inner

    def __call__(self, examples: Sequence[WeightedExample]) -> Any:
        """Return the batch.

        Raises:
            UnreadableSourceError: the examples have no weights, or something else stands where the weights go.
        """
        bare = next((example for example in examples if not isinstance(example, WeightedExample)), None)
        if bare is not None:
            message = f"collate got {type(bare).__name__}, an example without a weight; wanted those of weighted()."
            raise UnreadableSourceError(message, param="collate")
        batch = self._inner([example.example for example in examples])
        weights = torch.tensor([example.weight for example in examples], dtype=torch.float32)
        if isinstance(batch, Mapping):
            if WEIGHT in batch:
                raise UnreadableSourceError(f"The batch holds {WEIGHT!r} already; rename that column.", param="collate")
            return {**batch, WEIGHT: weights}
        return (*batch, weights) if isinstance(batch, list | tuple) else (batch, weights)


def build_sampler(
    weights: npt.NDArray[np.float32],
    positions: Positions,
    size: int,
    num_draws: int,
    *,
    seed: int,
    rank: int,
    num_ranks: int,
) -> WeightedSampler:
    """Return a sampler over a data set of `size` rows, in which the weighted ones stand at `positions`."""
    spread = np.zeros(size, dtype=np.float32)
    spread[positions] = weights
    return WeightedSampler(spread, num_draws, seed=seed, rank=rank, num_ranks=num_ranks)
