"""The summary of a finished job: counts, histograms, groups, evaluation, notes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sama_core import Decisions
from service.jobs.document import JobDocument
from service.jobs.evaluation_rules import TRUSTED_ARMS
from service.results.schemas import (
    CheckSummary,
    EvaluationSummary,
    Histogram,
    RelabelSummary,
    SelectionSummary,
    Summary,
)
from service.results.selection import note_emptied_classes
from worker.phases.reading import JobData
from worker.phases.scoring import Outcome, warn_uncalibrated
from worker.results.changes import LabelChanges
from worker.results.groups import MAX_SOURCES, GroupCounts

_NUM_BINS = 20
_ENOUGH_PER_CLASS = 5
_OF_ADDED = (
    "How sure the labels of rows without a given label are was learned on rows that have one: too sure where the "
    "others are of another kind."
)
_LEAST_WEIGHT_RANGE = 2.0


@dataclass(frozen=True)
class Counts:
    """What was counted over the rows: by given label, by source, and by change of label."""

    classes: GroupCounts
    sources: GroupCounts
    changes: LabelChanges


def build_summary(
    document: JobDocument, data: JobData, outcome: Outcome, evaluation: EvaluationSummary | None, counts: Counts
) -> Summary:
    """Return the summary."""
    num_rows, num_labelled = len(data.tables.train), len(data.labelled)
    decisions = outcome.decisions
    is_doubted = decisions.noise_score > np.float32(outcome.doubt_above)
    largest = max(_LEAST_WEIGHT_RANGE, float(decisions.weight.max()))
    notes = list(data.notes)
    if not outcome.is_calibrated:
        method = f"The trusted examples did not calibrate method {decisions.method}"
        lack = "No trusted examples" if data.meta is None else method
        notes.append(f"{lack}: noise_score is a ranking, not a probability.")
    notes += note_reliability(decisions, data.tables.label_map.num_classes)
    if counts.sources.num_groups > MAX_SOURCES:
        notes.append(f"Of {counts.sources.num_groups:,} sources the {MAX_SOURCES:,} largest are listed.")
    if evaluation is not None and data.meta is not None and not _sees_meta_set(evaluation):
        notes.append("The evaluation trains on curated rows alone; no arm sees the meta set as such.")
    if document.relabelling is not None and not outcome.is_calibrated:
        notes.append(warn_uncalibrated(decisions.method))
    if outcome.added is not None and outcome.added.num_labels:
        notes.append(_OF_ADDED)
    classes = counts.classes.summarise_classes(data.tables.label_map.values)
    notes += note_emptied_classes(classes)
    check = _read_check(decisions)
    if check is not None:
        notes.append(_describe_check(check))
    return Summary(
        num_rows=num_rows,
        num_labelled=num_labelled,
        num_unlabelled=num_rows - num_labelled,
        selection=summarise_selection(document, outcome, num_rows),
        weight_histogram=_count_bins(decisions.weight, largest),
        noise_histogram=_count_bins(decisions.noise_score, 1.0),
        classes=classes,
        sources=counts.sources.summarise_sources(),
        calibrated=outcome.is_calibrated,
        num_doubtful=int((is_doubted & (decisions.suggested != data.train.labels.numpy())).sum()),
        evaluation=evaluation if evaluation is not None else "not evaluated",
        hypergradient_check=check,
        relabel=_summarise_labels(document, data, outcome, counts.changes),
        notes=notes,
    )


def _summarise_labels(
    document: JobDocument, data: JobData, outcome: Outcome, changes: LabelChanges
) -> RelabelSummary | None:
    """Return what was done to labels; None where the task leaves them as they are."""
    spec, probabilities = document.relabelling, outcome.decided.probabilities
    if spec is None or probabilities is None:
        return None
    before, after = None, None
    if outcome.is_calibrated:
        places = np.arange(len(outcome.labels))
        before, after = (
            float(probabilities[places, labels].mean(dtype=np.float64))
            for labels in (data.train.labels.numpy(), outcome.labels)
        )
    added = outcome.added
    num_added_kept = 0 if added is None else int(((added.rank >= 0) & (added.rank < outcome.num_kept)).sum())
    rule = (
        f"where the suggested label is more probable than the given one and at least {spec.min_confidence:g} probable, "
        f"and the noise score is at least {spec.min_noise:g}"
    )
    if spec.unlabelled:
        rule += f"; rows without a label get one that is at least {spec.min_confidence:g} probable"
    return RelabelSummary(
        targets=spec.targets,
        min_confidence=spec.min_confidence,
        min_noise=spec.min_noise,
        rule=rule,
        num_corrected=int(outcome.corrected.sum()),
        num_labelled=0 if added is None else added.num_labels,
        num_kept=int((outcome.corrected & outcome.kept).sum()) + num_added_kept,
        expected_right_before=before,
        expected_right_after=after,
        num_changes=changes.num_pairs,
        changes=changes.summarise(),
    )


def note_reliability(decisions: Decisions, num_classes: int) -> list[str]:
    """Return how the noise scores of trusted rows, each judged without its own label, compare with the truth."""
    detector: Any = decisions.facts.get("detector")
    if detector is None:
        return []
    halves = [half for half in detector["held_out"] if half["count"] > 0]
    told = [
        f"of {half['count']:,} scored {'below' if half['low'] == 0.0 else 'from'} 0.5 "
        f"({half['mean_noise_score']:.2f} on average) {half['share_wrong']:.0%} are wrong"
        for half in halves
    ]
    whose = "labels planted in trusted rows" if detector["num_planted"] else "the given labels of trusted rows"
    note = f"noise_score beside {whose}, each judged without a look at its own truth: {', '.join(told)}."
    total = sum(half["count"] for half in halves)
    if total < _ENOUGH_PER_CLASS * num_classes:
        note += f" {total:,} trusted rows for {num_classes} classes are few: take the scores as rough."
    return [note]


def _sees_meta_set(evaluation: EvaluationSummary) -> bool:
    return not evaluation.arms or any(arm.arm in TRUSTED_ARMS for arm in evaluation.arms)


def _read_check(decisions: Decisions) -> CheckSummary | None:
    found = decisions.facts.get("hypergradient_check")
    return None if found is None else CheckSummary.model_validate(found)


def _describe_check(check: CheckSummary) -> str:
    """Return what the check found, in a sentence."""
    lowest = min(found.cosine for found in check.as_run)
    error = max(found.relative_error for found in check.double)
    return (
        f"Hypergradients of {len(check.as_run)} batches beside automatic differentiation: cosine {lowest:.6f} or more "
        f"as run, relative error {error:.1e} or less in float64."
    )


def summarise_selection(document: JobDocument, outcome: Outcome, num_rows: int) -> SelectionSummary:
    """Return which rows are kept, and by what rule."""
    return SelectionSummary(
        n_total=num_rows,
        n_labelled=outcome.num_labels,
        n_kept=outcome.num_kept,
        kept_fraction_of_total=outcome.num_kept / num_rows,
        rule=outcome.rule,
        rule_reason=outcome.rule_reason,
        class_floor=document.selection.class_floor,
        threshold=outcome.threshold,
        noise_cut=outcome.noise_cut,
        n_cut_off=outcome.num_cut_off,
        doubt_above=outcome.doubt_above,
    )


def _count_bins(values: NDArray[np.float32], largest: float) -> Histogram:
    edges = np.linspace(0.0, largest, _NUM_BINS + 1)
    counts, _ = np.histogram(np.clip(values.astype(np.float64), 0.0, largest), bins=edges)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())
