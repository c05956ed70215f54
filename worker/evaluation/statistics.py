"""Intervals that are honest about few seeds: chance in the training and chance in the test set, added up.

Outcomes are a table, seeds by test examples: 1 where the network of that seed is right on that example, else 0; or the
difference of two such tables. Both seeds and examples are drawn from more that might have been drawn, so the variance
of the overall mean has a part from each (crossed random effects). With the mean squares MS of the two-way table, S
seeds and T examples:

    reach^2 = (t(T-1)^2 * MS_examples + t(S-1)^2 * max(0, MS_seeds - MS_rest)) / (S * T)

Each part is widened by the t quantile of its own degrees of freedom: with three seeds the part of the seeds, which is
known badly, counts 4.3^2-fold, that of the examples 1.96^2-fold.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]

CONFIDENCE = 0.95

# Legend: S seeds, T test examples.

_METHOD = (
    "95% interval; the variances of seeds and of test examples (two-way random effects), each widened by the t "
    "quantile of its own degrees of freedom, are added up; differences are paired by seed and test example"
)
_ONE_SEED = "; with one seed the variance between trainings is unknown and not in it"


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval."""

    mean: float
    interval: tuple[float, float]


def describe_method(num_seeds: int) -> str:
    """Return in words how the intervals are made."""
    return _METHOD + (_ONE_SEED if num_seeds == 1 else "")


def estimate_mean(outcomes: NDArray[Any], bounds: tuple[float, float]) -> Estimate:
    """Return the mean of a table of outcomes (S, T) and its 95% interval within `bounds`.

    Where no outcome differs from another, nothing can be measured: the interval then reaches 3/T to either side, the
    share of other outcomes that T equal ones leave possible at 95%.

    Example:
        >>> estimate_mean(np.ones((3, 100)), (0.0, 1.0))
        Estimate(mean=1.0, interval=(0.97, 1.0))
    """
    outcomes_ST = np.asarray(outcomes, dtype=np.float64)
    mean = float(outcomes_ST.mean())
    num_examples = outcomes_ST.shape[1]
    if num_examples < 2:
        return Estimate(mean, bounds)
    reach = _measure_reach(outcomes_ST) or 3.0 / num_examples
    return Estimate(mean, (max(bounds[0], mean - reach), min(bounds[1], mean + reach)))


def _measure_reach(outcomes_ST: NDArray[np.float64]) -> float:
    """Return half the width of the interval; 0 where no outcome differs from another."""
    num_seeds, num_examples = outcomes_ST.shape
    mean = outcomes_ST.mean()
    means_T, means_S = outcomes_ST.mean(axis=0), outcomes_ST.mean(axis=1)
    square_T = num_seeds * float(((means_T - mean) ** 2).sum()) / (num_examples - 1)
    squared_reach = _quantile(num_examples - 1) ** 2 * square_T
    if num_seeds > 1:
        square_S = num_examples * float(((means_S - mean) ** 2).sum()) / (num_seeds - 1)
        rest_ST = outcomes_ST - means_T[None, :] - means_S[:, None] + mean
        square_rest = float((rest_ST**2).sum()) / ((num_seeds - 1) * (num_examples - 1))
        squared_reach += _quantile(num_seeds - 1) ** 2 * max(0.0, square_S - square_rest)
    return float(np.sqrt(squared_reach / outcomes_ST.size))


def _quantile(freedom: int) -> float:
    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
