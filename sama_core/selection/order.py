"""From scores to a nested order of rows: whatever is kept at a small fraction is kept at a larger one too."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sama_core.errors import OptionsError
from sama_core.selection.balanced import order_by_class
from sama_core.selection.coverage import order_by_coverage
from sama_core.selection.floor import keep_floor
from sama_core.selection.top import order_by_score

RuleName = Literal["top", "balanced", "coverage"]
RULES: tuple[RuleName, ...] = get_args(RuleName)
NOISE_CUT = 0.5


def order_rows(
    score: NDArray[np.float32],
    labels: NDArray[np.int64],
    rule: str = "top",
    class_floor: float = 0.3,
    *,
    noise_score: NDArray[np.float32] | None = None,
    representation: NDArray[np.float32] | None = None,
    noise_cut: float = NOISE_CUT,
) -> NDArray[np.int64]:
    """Rank the rows so that keeping any number k of them means keeping those of rank below k.

    Rows that are likely mislabelled, ``noise_score`` above ``noise_cut``, are cut off: they come last whatever the
    rule, the least doubtful first. A wrong label looks like a hard example to every score of difficulty, so it must be
    gone before hard examples are chosen. The others, the sound rows, stand in the order of the rule:

    - ``top``: by score alone. Where a little is dropped, and the score says what a row is worth to the training.
    - ``balanced``: by score within each class, each class in proportion to its size in every prefix.
    - ``coverage``: each class in proportion, and within it every range of the score and every part of the
      representation. Where much is dropped, or the score says how hard a row is rather than what it is worth.

    Every rule honours the class floor: among the first k of the M sound rows, each class c holds at least
    ``floor(class_floor * k / M * m_c)`` of its m_c sound rows (the floor counts to the thousandth). Under ``top`` and
    ``balanced`` a class's own rows always stand in the order of their scores; equal scores stand in row order.

    Shapes: score (N,), labels (N,), noise_score (N,), representation (N, D) -> (N,).

    Args:
        score: higher = kept earlier; finite.
        labels: class of each row, 0 or more.
        rule: top, balanced or coverage.
        class_floor: 0 (none) to 1 (each class in proportion to its size).
        noise_score: probability that the label is wrong, 0 to 1; None cuts nothing off.
        representation: what a network makes of each row, for ``coverage``; None spreads over the score instead.
        noise_cut: 0 to 1; 1 cuts nothing off. The default follows from what a calibrated ``noise_score`` means: above
            one half the label is more likely wrong than right.

    Returns:
        int64, 0 = kept first, each of 0..N-1 once. The same for the same arguments.

    Raises:
        OptionsError: an unknown rule, a floor or a cut outside [0, 1], a number that is not finite, unequal lengths.

    Example:
        >>> score = np.array([0.9, 0.8, 0.7, 0.1], dtype=np.float32)
        >>> labels = np.array([0, 0, 0, 1])
        >>> order_rows(score, labels, "top", class_floor=0.0).tolist()
        [0, 1, 2, 3]
        >>> order_rows(score, labels, "balanced").tolist()
        [0, 1, 3, 2]
        >>> noise_score = np.array([0.1, 0.9, 0.2, 0.6], dtype=np.float32)
        >>> order_rows(score, labels, "top", noise_score=noise_score).tolist()
        [0, 3, 1, 2]
    """
    _check(score, labels, rule, class_floor, noise_cut)
    _check_companions(len(score), noise_score, representation)
    is_cut_off = find_cut_off(noise_score, noise_cut, len(score))
    sound = np.flatnonzero(~is_cut_off)
    parts = [sound[_order_sound(score[sound], labels[sound], rule, class_floor, _take(representation, sound))]]
    if noise_score is not None:
        doubtful = np.flatnonzero(is_cut_off)
        parts.append(doubtful[np.lexsort((-score[doubtful].astype(np.float64), noise_score[doubtful]))])
    rank_N = np.empty(len(score), dtype=np.int64)
    rank_N[np.concatenate(parts)] = np.arange(len(score))
    return rank_N


def find_cut_off(noise_score: NDArray[np.float32] | None, noise_cut: float, num_rows: int) -> NDArray[np.bool_]:
    """Return which rows are cut off as likely mislabelled.

    Example:
        >>> find_cut_off(np.array([0.5, 0.6], dtype=np.float32), 0.5, 2).tolist()
        [False, True]
    """
    return np.zeros(num_rows, dtype=np.bool_) if noise_score is None else noise_score > noise_cut


def _order_sound(
    score: NDArray[np.float32],
    labels: NDArray[np.int64],
    rule: str,
    class_floor: float,
    representation: NDArray[np.float32] | None,
) -> NDArray[np.int64]:
    """Return the row numbers in the order of the rule, with the floor kept."""
    if rule == "coverage":
        order = order_by_coverage(score, labels, representation)
    else:
        order = order_by_score(score) if rule == "top" else order_by_class(score, labels)
    return keep_floor(order, labels, class_floor)


def _take(points: NDArray[np.float32] | None, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
    return None if points is None else points[rows]


def _check(
    score: NDArray[np.float32], labels: NDArray[np.int64], rule: str, class_floor: float, noise_cut: float
) -> None:
    if rule not in RULES:
        raise OptionsError(f"rule: {rule!r}; wanted one of {', '.join(RULES)}")
    for name, value in (("class_floor", class_floor), ("noise_cut", noise_cut)):
        if not 0 <= value <= 1:
            raise OptionsError(f"{name}: {value!r}; wanted a number from 0 to 1")
    if score.shape != labels.shape or score.ndim != 1:
        raise OptionsError(f"score: shape {score.shape}; wanted one number for each of {len(labels)} labels")
    if not np.isfinite(score).all():
        raise OptionsError("score: holds a number that is not finite; wanted finite numbers only")


def _check_companions(
    num_rows: int, noise_score: NDArray[np.float32] | None, representation: NDArray[np.float32] | None
) -> None:
    if noise_score is not None:
        if noise_score.shape != (num_rows,):
            raise OptionsError(f"noise_score: shape {noise_score.shape}; wanted ({num_rows},)")
        if not np.isfinite(noise_score).all():
            raise OptionsError("noise_score: holds a number that is not finite; wanted finite numbers only")
    if representation is not None:
        if representation.ndim != 2 or len(representation) != num_rows or representation.shape[1] == 0:
            raise OptionsError(f"representation: shape {representation.shape}; wanted ({num_rows}, at least 1)")
        if not np.isfinite(representation).all():
            raise OptionsError("representation: holds a number that is not finite; wanted finite numbers only")
