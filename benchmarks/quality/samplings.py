"""How the published pruning methods draw the rows to keep by their scores.

Legend: N rows, S strata.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

_NUM_STRATA = 50
_CUT_SHARES = {0.3: 0.0, 0.5: 0.0, 0.7: 0.1, 0.9: 0.3}
_CONCENTRATION, _STEEPNESS, _NUM_ANCHORS = 15.0, 5.5, 10


def draw_strata(margin: NDArray[np.float32], num_kept: int, removed: float, seed: int) -> NDArray[np.int64]:
    """Return the rows (``num_kept``,) that coverage-centric selection draws, ascending.

    The share beta of the rows with the lowest margins goes first: 0, 0, 0.1 and 0.3 where 30, 50, 70 and 90% are
    removed, the authors' values for CIFAR-10. The rest is cut into 50 strata of equal width, each with an equal part
    of the places; what a small stratum cannot fill falls to the larger ones.

    Args:
        margin: (N,) area under the margin; high = easy.
        num_kept: rows to draw.
        removed: share of the rows that this leaves out, of ``REMOVED``.
        seed: of the draw.

    References:
        Zheng et al., Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023, arXiv:2210.15809.
    """
    rng = np.random.default_rng([0xCC5, seed])
    order = np.argsort(margin, kind="stable")
    left = order[int(_CUT_SHARES[removed] * len(margin)) :]
    values = margin[left].astype(np.float64)
    width = np.ptp(values) / _NUM_STRATA or 1.0
    strata = np.minimum(((values - values.min()) / width).astype(np.int64), _NUM_STRATA - 1)
    sizes = np.bincount(strata, minlength=_NUM_STRATA)
    places, drawn = num_kept, []
    for number, stratum in enumerate(np.argsort(sizes, kind="stable")):
        share = min(int(sizes[stratum]), places // (_NUM_STRATA - number))
        drawn.append(rng.choice(left[strata == stratum], share, replace=False))
        places -= share
    return np.sort(np.concatenate(drawn))


def draw_by_beta(
    score: NDArray[np.float32], mean: NDArray[np.float32], num_kept: int, removed: float, seed: int
) -> NDArray[np.int64]:
    """Return the rows (``num_kept``,) that DUAL draws, ascending: by the score times a Beta density of the mean.

    The more is removed, the easier the rows on which the density lies.

    Args:
        score: (N,) DUAL's.
        mean: (N,) probability of the given label, averaged over the epochs.
        num_kept: rows to draw.
        removed: share of the rows that this leaves out.
        seed: of the draw.

    References:
        Cho et al., Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
        Uncertainty, ICML 2025, arXiv:2502.06905; constants for CIFAR-10.
    """
    anchor = float(mean[np.argsort(score, kind="stable")[-_NUM_ANCHORS:]].mean())
    second = _CONCENTRATION * (1.0 - anchor) * (1.0 - removed**_STEEPNESS)
    density = beta.pdf(np.clip(mean.astype(np.float64), 1e-6, 1.0 - 1e-6), _CONCENTRATION + 1.0 - second, second)
    chance = np.clip(score.astype(np.float64), 1e-12, None) * np.clip(density, 1e-12, None)
    rng = np.random.default_rng([0xD0A1, seed])
    return np.sort(rng.choice(len(score), num_kept, replace=False, p=chance / chance.sum()))
