"""How well wrong labels are found."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

_NUM_BINS = 10


@dataclass(frozen=True)
class Detection:
    """Figures over the rows that are judged.

    Attributes:
        auroc: chance that a wrong label has a higher noise score than a right one.
        average_precision: area under precision over recall.
        precision: share of wrong labels among as many rows of highest noise score as labels are wrong.
        brier: mean squared difference of the noise score, read as a probability, and the truth.
        num_rows: rows.
        num_wrong: of them with a wrong label.
        bins: rows, mean noise score and share of wrong labels of each tenth of [0, 1].
    """

    auroc: float
    average_precision: float
    precision: float
    brier: float
    num_rows: int
    num_wrong: int
    bins: list[list[float]]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def measure_detection(noise: NDArray[np.float32], wrong: NDArray[np.bool_]) -> Detection | None:
    """Return the figures of noise scores (N,) of rows with wrong labels or not (N,); None where all are alike."""
    if wrong.all() or not wrong.any():
        return None
    scores = noise.astype(np.float64)
    return Detection(
        auroc=float(roc_auc_score(wrong, scores)),
        average_precision=float(average_precision_score(wrong, scores)),
        precision=measure_precision(scores, wrong, int(wrong.sum())),
        brier=float(((scores - wrong) ** 2).mean()),
        num_rows=len(wrong),
        num_wrong=int(wrong.sum()),
        bins=_bin(scores, wrong),
    )


def measure_precision(scores: NDArray[np.float64], wrong: NDArray[np.bool_], count: int) -> float:
    """Return the share of wrong labels among the ``count`` highest scores; of equal scores, what chance would take.

    >>> measure_precision(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), 2)
    0.75
    """
    threshold = np.sort(scores)[-count]
    above, level = scores > threshold, scores == threshold
    taken = (count - above.sum()) / level.sum()
    return float((wrong[above].sum() + taken * wrong[level].sum()) / count)


def _bin(scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> list[list[float]]:
    places = np.clip((scores * _NUM_BINS).astype(np.int64), 0, _NUM_BINS - 1)
    found = [places == place for place in range(_NUM_BINS)]
    return [
        [float(inside.sum()), float(scores[inside].mean()), float(wrong[inside].mean())]
        if inside.any()
        else [0.0, 0.0, 0.0]
        for inside in found
    ]
