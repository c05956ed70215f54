"""How well a noise score finds planted errors, and whether its numbers can be taken at their word."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from service.results.schemas import DetectionSummary, ReliabilityBin

NUM_BINS = 10


def summarise_detection(
    name: str, noise_score: NDArray[Any], is_planted: NDArray[np.bool_], doubt: NDArray[Any] | None = None
) -> DetectionSummary:
    """Return how well errors are found.

    Args:
        name: whose score it is.
        noise_score: (N,) in [0, 1].
        is_planted: (N,) some true, some false.
        doubt: (N,) the same order as the noise score's without its ties; None takes the noise score.
    """
    order = noise_score if doubt is None else doubt
    return DetectionSummary(
        name=name,
        auroc=float(roc_auc_score(is_planted, order)),
        average_precision=float(average_precision_score(is_planted, order)),
        precision=measure_precision(order, is_planted),
        reliability=count_reliability(noise_score, is_planted),
    )


def measure_precision(doubt: NDArray[Any], is_planted: NDArray[np.bool_]) -> float:
    """Return the share of planted rows among as many most doubted rows as there are planted ones.

    Of rows that are doubted alike at the border, as many are taken at random as still fit: the mean over these draws.

    Example:
        >>> measure_precision(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
        0.75
    """
    num_planted = int(is_planted.sum())
    border = np.partition(doubt, len(doubt) - num_planted)[len(doubt) - num_planted]
    above, ties = doubt > border, doubt == border
    found = is_planted[above].sum() + is_planted[ties].mean() * (num_planted - above.sum())
    return float(found / num_planted)


def count_reliability(noise_score: NDArray[Any], is_planted: NDArray[np.bool_]) -> list[ReliabilityBin]:
    """Return ten equal bins of the noise score with the share of planted rows in each.

    Example:
        >>> first, *_, last = count_reliability(np.array([0.05, 0.96, 1.0]), np.array([False, True, False]))
        >>> (first.count, first.share_planted), (last.count, last.share_planted)
        ((1, 0.0), (2, 0.5))
    """
    places = np.clip((noise_score * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    counts = np.bincount(places, minlength=NUM_BINS)
    planted = np.bincount(places, weights=is_planted, minlength=NUM_BINS)
    totals = np.bincount(places, weights=noise_score.astype(np.float64), minlength=NUM_BINS)
    return [
        ReliabilityBin(
            low=place / NUM_BINS,
            high=(place + 1) / NUM_BINS,
            count=int(count),
            mean_noise_score=float(totals[place] / count) if count else None,
            share_planted=float(planted[place] / count) if count else None,
        )
        for place, count in enumerate(counts)
    ]
