"""The rule ``top``: by score alone."""

import numpy as np
from numpy.typing import NDArray


def order_by_score(score: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the row numbers by falling score, equal scores in row order.

    Right where a higher score means more worth to the training and little is dropped. A small share of the best scores
    is a poor training set, whatever the score: easy rows alone where it rewards agreement, hard ones where it rewards
    difficulty.

    Shapes: score (N,) -> (N,).

    Example:
        >>> order_by_score(np.array([0.1, 0.9, 0.1], dtype=np.float32)).tolist()
        [1, 0, 2]
    """
    return np.argsort(-score.astype(np.float64), kind="stable")
