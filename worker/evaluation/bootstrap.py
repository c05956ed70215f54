"""The paired bootstrap: seeds and test examples are drawn anew, with replacement, each independently of the other.

Of simulated 95% intervals with three seeds and 80 test examples (300 trials a setting), those of `statistics` held the
truth in 0.91 to 0.98 of the trials in every one of six settings, those of the bootstrap in 0.74 and 0.79 where seeds
differed as a whole, in 1.00 where every outcome was by chance. So it is shown, and the verdict rests on the other.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.statistics import CONFIDENCE

MOST_RESAMPLES = 10_000
_FEWEST_RESAMPLES = 1_000
_MOST_DRAWS = 20_000_000
_CHUNK_DRAWS = 1_000_000
_STREAM = 0xB007

# Legend: S seeds, T test examples, K distinct columns among T, R resamples of a chunk.


def describe_bootstrap() -> str:
    """Return in words how the bootstrap's intervals are made, and why the verdict rests on the other ones."""
    return (
        "95% percentile interval of a paired bootstrap: seeds and test examples are drawn anew, with replacement, "
        f"up to {MOST_RESAMPLES:,} times. The verdict rests on the other interval: this one is too narrow where seeds "
        "differ as a whole, since few of them drawn anew say too little, and too wide where outcomes are by chance"
    )


def bootstrap_mean(outcomes: NDArray[Any], seed: int) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the mean of a table of outcomes (S, T).

    Test examples with the same outcomes under every seed are alike, so a resample of T of them is one multinomial draw
    over the K kinds there are: exact, and as fast for a million examples as for a hundred.

    Example:
        >>> bootstrap_mean(np.ones((3, 100)), seed=0)
        (1.0, 1.0)
    """
    outcomes_ST = np.asarray(outcomes, dtype=np.float64)
    num_seeds, num_examples = outcomes_ST.shape
    kinds_SK, counts_K = np.unique(outcomes_ST, axis=1, return_counts=True)
    num_kinds = len(counts_K)
    num_resamples = int(np.clip(_MOST_DRAWS // num_kinds, _FEWEST_RESAMPLES, MOST_RESAMPLES))
    generator = np.random.default_rng([_STREAM, seed])
    chunk = max(1, _CHUNK_DRAWS // num_kinds)
    means = []
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        drawn_RS = generator.multinomial(num_seeds, np.full(num_seeds, 1.0 / num_seeds), size)
        drawn_RK = generator.multinomial(num_examples, counts_K / num_examples, size)
        means.append(((drawn_RS @ kinds_SK) * drawn_RK).sum(axis=1) / outcomes_ST.size)
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)
