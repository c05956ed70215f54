"""How many rows, by which rule, and why: what is settled before an order is made."""

import numpy as np
from numpy.typing import NDArray

from sama_core.errors import OptionsError
from sama_core.selection.order import NOISE_CUT, RULES, RuleName

_TOP_FROM = 0.95
_FEWEST_KEPT = 20
_UNCALIBRATED_CUT = 0.9


def choose_rule(
    rule: str, keep_fraction: float, labels: NDArray[np.int64], *, has_meta_set: bool = True
) -> tuple[RuleName, str]:
    """Return the rule to select by and the reason in words; only ``auto`` is decided here.

    ``auto`` takes ``coverage`` wherever more than a few rows go: a cut by any score keeps one kind of rows alone, the
    easy ones where the score rewards agreement, the hard ones where it rewards difficulty, and trains worse than as
    many random rows. It does so even where trusted examples judged the score, whose lowest rows are then mostly those
    that are cut off as likely mislabelled under every rule. Only the last few rows may go by a score that was judged
    (``top``), unless that could empty a small class (``balanced``).

    Args:
        rule: auto, top, balanced or coverage.
        keep_fraction: share of the rows to keep, in (0, 1].
        labels: class of each labelled row (N,).
        has_meta_set: whether trusted examples judged the scores.

    Returns:
        The rule, and one sentence.

    Raises:
        OptionsError: an unknown rule.

    Example:
        >>> labels = np.zeros(1000, dtype=np.int64)
        >>> choose_rule("auto", 0.9, labels)[0], choose_rule("auto", 0.3, labels)[0]
        ('coverage', 'coverage')
        >>> choose_rule("auto", 0.97, labels)[0], choose_rule("auto", 0.97, labels, has_meta_set=False)[0]
        ('top', 'coverage')
    """
    for known in RULES:
        if rule == known:
            return known, f"{known}, as asked for"
    if rule != "auto":
        raise OptionsError(f"rule: {rule!r}; wanted one of auto, {', '.join(RULES)}")
    if keep_fraction < _TOP_FROM:
        reason = (
            f"{_write_share(1 - keep_fraction)} of the rows go, and a cut by score alone would keep one kind of rows"
        )
        return "coverage", f"coverage: {reason}"
    if not has_meta_set and keep_fraction < 1:
        reason = "no trusted examples judged the score, so it says how easy a row is rather than what it is worth"
        return "coverage", f"coverage: {reason}"
    sizes_C = np.bincount(labels)
    smallest = int(sizes_C[sizes_C > 0].min()) if len(labels) else 0
    if keep_fraction * smallest < _FEWEST_KEPT:
        return "balanced", f"balanced: the smallest class has only {smallest} rows"
    if keep_fraction == 1:
        return "top", "top: every labelled row is kept"
    return "top", f"top: {_write_share(keep_fraction)} is kept, so only the rows of lowest score go"


def _write_share(share: float) -> str:
    """Return a share as per cent that never says all or nothing of a part."""
    if share > 0.99:
        return "over 99%"
    return "under 1%" if share < 0.01 else f"{share:.0%}"


def choose_noise_cut(noise_cut: float | None, *, is_calibrated: bool) -> float:
    """Return the noise score above which a row is cut off as likely mislabelled: as asked for, else the default.

    A calibrated noise score is a probability, and above 0.5 the label is more likely wrong than right. One that no
    trusted rows calibrated is not: hard rows with right labels have high ones too, and on clean data a cut at 0.5
    costs accuracy. Then only what the network all but rules out, above 0.9, is cut off.

    Args:
        noise_cut: 0 to 1, 1 cuts nothing off; None takes the default.
        is_calibrated: whether the noise scores were fitted to trusted labels.

    Example:
        >>> choose_noise_cut(None, is_calibrated=True), choose_noise_cut(None, is_calibrated=False)
        (0.5, 0.9)
        >>> choose_noise_cut(1.0, is_calibrated=True)
        1.0
    """
    if noise_cut is not None:
        return noise_cut
    return NOISE_CUT if is_calibrated else _UNCALIBRATED_CUT


def num_kept(keep_fraction: float, n_total: int, n_labelled: int) -> int:
    """Return how many rows are kept: ``keep_fraction`` of the total, rounded, but labelled rows only.

    Args:
        keep_fraction: share of **all** rows, in (0, 1].
        n_total: rows in all.
        n_labelled: rows with a label: the most that can be kept.

    Raises:
        OptionsError: a fraction outside (0, 1].

    Example:
        >>> num_kept(0.8, n_total=10, n_labelled=9), num_kept(1.0, n_total=10, n_labelled=9)
        (8, 9)
    """
    if not 0 < keep_fraction <= 1:
        raise OptionsError(f"keep_fraction: {keep_fraction!r}; wanted a number above 0, at most 1")
    return min(n_labelled, max(1, int(keep_fraction * n_total + 0.5)))
