"""The verdict in words: what the intervals say, and nothing more."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.jobs.document_specs import Arm
from service.results.schemas import AuditSummary, Comparison
from service.wording import write_count, write_share
from worker.evaluation.bootstrap import bootstrap_mean
from worker.evaluation.statistics import estimate_mean

Subject = Literal["curated", "curated-and-meta"]

# Better, not told apart, worse: what the verdict says of a control, {who} being the curated arm.
_WORDS: Mapping[str, tuple[str, str, str]] = {
    "random": ("{who} is better than random", "{who} is no better than random", "{who} is worse than random"),
    "full": (
        "Against the full data: better than training on everything",
        "Against the full data: no measurable difference from training on everything",
        "Against the full data: worse than training on everything",
    ),
    "loss": (
        "{who} is better than as many rows of the lowest loss",
        "{who} is no better than as many rows of the lowest loss",
        "{who} is worse than as many rows of the lowest loss",
    ),
    "meta": (
        "{who} is better than training on the meta set alone",
        "Training on the meta set alone does as well",
        "Training on the meta set alone does better",
    ),
    "full-and-meta": (
        "{who} is better than training + meta set without reweighting",
        "Training + meta set without reweighting does as well",
        "Training + meta set without reweighting does better",
    ),
}
_WHO: Mapping[Subject, str] = {"curated": "Curated", "curated-and-meta": "Curated with the meta set"}
_CONTROLS: Mapping[Subject, tuple[Arm, ...]] = {
    "curated": ("full", "random", "loss", "meta", "full-and-meta"),
    "curated-and-meta": ("meta", "full-and-meta"),
}
_SENTENCES: tuple[Arm, ...] = ("random", "full", "loss", "meta", "full-and-meta")
_TRUSTED_ALONE = "Training on the meta set alone does better than on the curated rows without it"
_FEWEST_PLANTED = 10
_CAVEATS: Mapping[int, str] = {
    1: "From 1 seed alone: the intervals leave out how much trainings differ.",
    2: "From 2 seeds alone: they hardly show how much trainings differ.",
}


def compare_arms(
    correct: Mapping[Arm, NDArray[Any]], seed: int, twins: Mapping[Arm, Arm] = MappingProxyType({})
) -> list[Comparison]:
    """Return the paired differences of the curated arms and each control that was trained.

    Args:
        correct: arm -> (seeds, test examples), 1 where right.
        seed: of the bootstrap.
        twins: arms that are the training of another one, each with that one: not compared with it.
    """
    return [
        compare(correct[subject], correct[control], subject, control, seed)
        for subject, controls in _CONTROLS.items()
        for control in controls
        if subject in correct and control in correct and twins.get(subject, subject) != twins.get(control, control)
    ]


def compare(right: NDArray[Any], control: NDArray[Any], subject: Subject, arm: Arm, seed: int) -> Comparison:
    """Return the paired difference of two tables (seeds, test examples)."""
    difference = right.astype(np.float64) - control.astype(np.float64)
    estimate = estimate_mean(difference, (-1.0, 1.0))
    return Comparison(
        subject=subject,
        arm=arm,
        difference=estimate.mean,
        interval=estimate.interval,
        bootstrap=bootstrap_mean(difference, seed),
    )


def write_verdict(
    comparisons: Sequence[Comparison],
    audit: AuditSummary | None = None,
    *,
    num_seeds: int,
    twins: Mapping[Arm, Arm] = MappingProxyType({}),
) -> str:
    """Return the sentences that the comparisons and the audit bear out, what they leave out first.

    Where the control has seen the meta set, the fair counterpart is the curated arm that has seen it, too, if it was
    trained; that the meta set alone is better than the curated rows without it is said all the same.

    Args:
        comparisons: of the curated arms with the controls.
        audit: of planted errors.
        num_seeds: trainings of each arm.
        twins: arms that are the training of another one, each with that one.
    """
    by_control = {comparison.arm: comparison for comparison in comparisons}  # the fairer one of a control comes last
    sentences = [_CAVEATS[num_seeds]] if comparisons and num_seeds in _CAVEATS else []
    if twins:
        sentences.append(_write_twins(twins))
    sentences += [_write_comparison(by_control[control]) for control in _SENTENCES if control in by_control]
    for found in comparisons:
        if (found.subject, found.arm, found.finding) == ("curated", "meta", "worse") and by_control["meta"] != found:
            sentences.append(f"{_TRUSTED_ALONE}: {_write_difference(found)}")
    if audit is not None:
        sentences.append(_write_audit(audit))
    return " ".join(sentences) or "Nothing to compare: no curated arm, or no control beside it, was trained."


def _write_twins(twins: Mapping[Arm, Arm]) -> str:
    alike = {first: [arm for arm in twins if twins[arm] == first] for first in twins.values()}
    parts = [f"{first} is also what {' and '.join(arms)} would train on" for first, arms in alike.items()]
    return f"Nothing was dropped or weighted: {', and '.join(parts)}, so that there is no difference to measure."


def _write_comparison(comparison: Comparison) -> str:
    better, equal, worse = _WORDS[comparison.arm]
    words = {"better": better, "not told apart": equal, "worse": worse}[comparison.finding]
    who = _WHO[comparison.subject]
    by_whom = "" if "{who}" in words or comparison.arm == "full" else f"{who.lower()} stands at "
    separator = "," if comparison.arm == "full" else ":"
    return f"{words.format(who=who)}{separator} {by_whom}{_write_difference(comparison)}"


def _write_difference(comparison: Comparison) -> str:
    low, high = (100.0 * bound for bound in comparison.interval)
    return (
        f"{100.0 * comparison.difference:+.1f} points of test accuracy "
        f"(95% interval {low:+.1f} to {high:+.1f}{_write_doubt(comparison)})."
    )


def _write_doubt(comparison: Comparison) -> str:
    """Return what to add where the bootstrap does not bear a difference out."""
    drawn = comparison.bootstrap
    if drawn is None or comparison.finding == "not told apart" or not drawn[0] <= 0.0 <= drawn[1]:
        return ""
    return f"; the bootstrap's, {100.0 * drawn[0]:+.1f} to {100.0 * drawn[1]:+.1f}, holds 0"


def warn_of_few(num_planted: int) -> str:
    """Return what to say before the figures of an audit; nothing where enough errors were planted.

    Example:
        >>> warn_of_few(10)
        ''
    """
    if num_planted >= _FEWEST_PLANTED:
        return ""
    planted = write_count(num_planted, "error")
    return (
        f"Only {planted} planted, which is too few to say how many are found; wanted at least {_FEWEST_PLANTED}: "
        "a higher evaluation.plant.rate, or more rows. "
    )


def _write_audit(audit: AuditSummary) -> str:
    ours, *others = audit.detections
    beside = "".join(f", by {other.name} {write_share(other.precision)}" for other in others)
    return warn_of_few(audit.num_planted) + (
        f"Of {audit.num_planted:,} planted errors {write_share(ours.precision)} are among the {audit.num_planted:,} "
        f"rows doubted most{beside}."
    )
