"""Draws rows in proportion to their weights."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from sama_core.errors import OptionsError
from sama_core.randomness import make_generator

_CHUNK = 65_536


class WeightedSampler(Sampler[int]):
    """Draws rows with replacement, each with probability weight / sum of weights, exact for any number of rows.

    ``torch.utils.data.WeightedRandomSampler`` refuses more than 2**24 rows; this one searches the running sum in
    double precision. Under several ranks each draws its own share of one common stream. Call ``set_epoch`` before
    each pass, as with a ``DistributedSampler``.

    Args:
        weights: (N,) 0 or more, at least one above 0.
        num_draws: draws of one pass over all ranks, at least one a rank; None takes N. Each rank makes the same number
            of draws, so up to ``num_ranks - 1`` of them are left out.
        seed: of the stream.
        rank: this process, 0..num_ranks-1.
        num_ranks: processes that share the stream.

    Raises:
        OptionsError: weights that are negative, not finite, all 0 or not one-dimensional; a rank outside its range; a
            number that is not whole, or too small.

    Example:
        >>> sampler = WeightedSampler(np.array([0.0, 1.0, 0.0]), num_draws=4)
        >>> list(sampler), len(sampler)
        ([1, 1, 1, 1], 4)
    """

    def __init__(
        self,
        weights: NDArray[np.floating],
        num_draws: int | None = None,
        *,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        weights_N = np.asarray(weights, dtype=np.float64)
        if weights_N.ndim != 1 or not np.isfinite(weights_N).all() or (weights_N < 0).any():
            raise OptionsError("weights: negative, not finite or not one-dimensional; wanted (N,) of 0 or more")
        if weights_N.sum() == 0:
            raise OptionsError(f"weights: all {len(weights_N)} are 0; wanted at least one above 0")
        draws = len(weights_N) if num_draws is None else num_draws
        _check_count("num_ranks", num_ranks, 1, "1")
        if not isinstance(rank, int | np.integer) or not 0 <= rank < num_ranks:
            raise OptionsError(f"rank: {rank}; wanted a number from 0 to {num_ranks - 1}")
        _check_count("num_draws", draws, num_ranks, f"{num_ranks}, one a rank")
        self._sums_N = np.cumsum(weights_N)
        self._num_draws = int(draws) // int(num_ranks)
        self._seed, self._rank, self._num_ranks, self._epoch = seed, rank, num_ranks, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the draws of another pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the draws of this rank in one pass."""
        return self._num_draws

    def __iter__(self) -> Iterator[int]:
        """Yield row numbers, a chunk computed at a time."""
        generator = make_generator(self._seed, "weighted-sampler", self._epoch)
        left = self._num_draws
        while left > 0:
            size = min(_CHUNK, left)
            uniform = torch.rand(size * self._num_ranks, generator=generator, dtype=torch.float64)
            points = uniform[self._rank :: self._num_ranks].numpy() * self._sums_N[-1]
            # "right" never lands on a row of weight 0; the product may round up to the very end
            rows = np.searchsorted(self._sums_N, points, side="right")
            yield from np.minimum(rows, np.searchsorted(self._sums_N, self._sums_N[-1])).tolist()
            left -= size


def _check_count(name: str, value: object, least: int, wanted: str) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise OptionsError(f"{name}: {value!r}; wanted a whole number of at least {wanted}")
