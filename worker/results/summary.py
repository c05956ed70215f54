"""The summary of a finished job: counts, histograms, groups, evaluation, notes."""

import numpy as np
from numpy.typing import NDArray

from sama_core import Decisions
from service.jobs.document import JobDocument
from service.results.rows import DOUBTFUL_NOISE_SCORE
from service.results.schemas import CheckSummary, EvaluationSummary, Histogram, SelectionSummary, Summary
from worker.phases.reading import JobData
from worker.phases.scoring import Outcome
from worker.results.groups import MAX_SOURCES, GroupCounts

_NUM_BINS = 20
_LEAST_WEIGHT_RANGE = 2.0


def build_summary(
    document: JobDocument,
    data: JobData,
    outcome: Outcome,
    evaluation: EvaluationSummary | None,
    *,
    classes: GroupCounts,
    sources: GroupCounts,
) -> Summary:
    """Return the summary."""
    num_rows, num_labelled = len(data.tables.train), len(data.labelled)
    decisions = outcome.decisions
    doubtful = (decisions.noise_score >= DOUBTFUL_NOISE_SCORE) & (decisions.suggested != data.train.labels.numpy())
    largest = max(_LEAST_WEIGHT_RANGE, float(decisions.weight.max()))
    notes = list(data.notes)
    if sources.num_groups > MAX_SOURCES:
        notes.append(f"Of {sources.num_groups:,} sources the {MAX_SOURCES:,} largest are listed.")
    if evaluation is not None and data.meta is not None:
        notes.append("The evaluation trains on curated rows alone; no arm sees the meta set as such.")
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
        classes=classes.summarise_classes(data.tables.label_map.values),
        sources=sources.summarise_sources(),
        num_doubtful=int(doubtful.sum()),
        evaluation=evaluation if evaluation is not None else "not evaluated",
        hypergradient_check=check,
        notes=notes,
    )


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
    threshold = float(outcome.decisions.score[outcome.kept].min()) if outcome.rule == "top" else None
    return SelectionSummary(
        n_total=num_rows,
        n_labelled=len(outcome.rank),
        n_kept=outcome.num_kept,
        kept_fraction_of_total=outcome.num_kept / num_rows,
        rule=outcome.rule,
        rule_reason=outcome.rule_reason,
        class_floor=document.selection.class_floor,
        threshold=threshold,
    )


def _count_bins(values: NDArray[np.float32], largest: float) -> Histogram:
    edges = np.linspace(0.0, largest, _NUM_BINS + 1)
    counts, _ = np.histogram(np.clip(values.astype(np.float64), 0.0, largest), bins=edges)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())
