"""Intervals that are honest about few seeds: chance in the training and chance in the test set, added up.

Outcomes are a table, seeds by test examples: 1 where the network of that seed is right on that example, else 0; or the
difference of two such tables. Both seeds and examples are drawn from more that might have been drawn, so the variance
of the overall mean has a part from each (crossed random effects):

    Var(mean) = (MS_examples + max(0, MS_seeds - MS_rest)) / (num_seeds * num_examples)

with the mean squares MS of the two-way table, and degrees of freedom by Satterthwaite.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]

CONFIDENCE = 0.95

# Legend: S seeds, T test examples.

_METHOD = (
    "95% t-interval; variance of seeds and of test examples added up (two-way random effects, Satterthwaite degrees "
    "of freedom); differences are paired by seed and test example"
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
    variance, freedom = _measure_variance(outcomes_ST)
    if variance > 0.0:
        quantile = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
        reach = quantile * float(np.sqrt(variance))
    else:
        reach = 3.0 / num_examples
    return Estimate(mean, (max(bounds[0], mean - reach), min(bounds[1], mean + reach)))


def _measure_variance(outcomes_ST: NDArray[np.float64]) -> tuple[float, float]:
    """Return the variance of the overall mean and its degrees of freedom."""
    num_seeds, num_examples = outcomes_ST.shape
    mean = outcomes_ST.mean()
    means_T, means_S = outcomes_ST.mean(axis=0), outcomes_ST.mean(axis=1)
    square_T = num_seeds * float(((means_T - mean) ** 2).sum()) / (num_examples - 1)
    count = num_seeds * num_examples
    if num_seeds == 1:
        return square_T / count, float(num_examples - 1)
    square_S = num_examples * float(((means_S - mean) ** 2).sum()) / (num_seeds - 1)
    rest_ST = outcomes_ST - means_T[None, :] - means_S[:, None] + mean
    rest_freedom = (num_seeds - 1) * (num_examples - 1)
    square_rest = float((rest_ST**2).sum()) / rest_freedom
    parts = [(square_T, num_examples - 1)]
    if square_S > square_rest:
        parts += [(square_S, num_seeds - 1), (-square_rest, rest_freedom)]
    total = sum(square for square, _ in parts)
    spread = sum(square**2 / freedom for square, freedom in parts)
    return total / count, max(1.0, total**2 / spread) if spread > 0.0 else 1.0
