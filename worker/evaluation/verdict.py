"""The verdict in words: what the intervals say, and nothing more."""

from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray

from service.results.schemas import Comparison
from worker.evaluation.arms import ArmName
from worker.evaluation.statistics import estimate_mean

Control = Literal["full", "random"]

_WORDS: Mapping[Control, tuple[str, str, str]] = {
    "random": (
        "Curated is better than random",
        "Curated is no better than random",
        "Curated is worse than random",
    ),
    "full": (
        "better than training on everything",
        "no measurable difference from training on everything",
        "worse than training on everything",
    ),
}


def compare_arms(correct: Mapping[ArmName, NDArray[Any]]) -> list[Comparison]:
    """Return the paired differences of the curated arm and each control that was trained.

    Args:
        correct: arm -> (seeds, test examples), 1 where right.
    """
    if "curated" not in correct:
        return []
    controls: tuple[Control, ...] = ("full", "random")
    comparisons = []
    for control in controls:
        if control in correct:
            difference = correct["curated"].astype(float) - correct[control].astype(float)
            estimate = estimate_mean(difference, (-1.0, 1.0))
            comparisons.append(Comparison(arm=control, difference=estimate.mean, interval=estimate.interval))
    return comparisons


def write_verdict(comparisons: list[Comparison]) -> str:
    """Return the sentences that the comparisons bear out."""
    by_arm = {comparison.arm: comparison for comparison in comparisons}
    sentences = []
    if "random" in by_arm:
        sentences.append(f"{_choose_words(by_arm['random'])}: {_write_difference(by_arm['random'])}.")
    if "full" in by_arm:
        words = _choose_words(by_arm["full"])
        start = "Against the full data" if sentences else "Curated against the full data"
        sentences.append(f"{start}: {words}, {_write_difference(by_arm['full'])}.")
    return " ".join(sentences) or "Nothing to compare: the curated arm or every control was left out."


def _choose_words(comparison: Comparison) -> str:
    better, equal, worse = _WORDS[comparison.arm]
    if comparison.interval[0] > 0.0:
        return better
    return worse if comparison.interval[1] < 0.0 else equal


def _write_difference(comparison: Comparison) -> str:
    low, high = (100.0 * bound for bound in comparison.interval)
    return f"{100.0 * comparison.difference:+.1f} points of test accuracy (95% interval {low:+.1f} to {high:+.1f})"
