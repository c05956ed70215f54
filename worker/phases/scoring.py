"""Scoring: what the training has shown becomes a decision on every labelled row, and an order of them all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core import JSON, Decisions, check_hypergradient
from sama_core.influences import Influences
from sama_core.selection import choose_noise_cut, choose_rule, find_cut_off, order_rows
from service.jobs.document import BASELINES, META_FREE_BASELINES
from service.jobs.state import Phase
from service.results.reasons import DOUBTFUL_NOISE_SCORE
from service.results.rows import count_kept
from service.wording import write_count
from worker.checkpoints import Checkpoint
from worker.context import AttemptContext, StepBoundary
from worker.data.unlabelled import SuggestsLabels
from worker.phases.reading import JobData
from worker.phases.relabelling import AddedLabels, Relabelling, Suggestions, correct_labels, leave_labels
from worker.phases.saved_decisions import export_decisions, import_decisions
from worker.phases.tracing import export_influences, import_influences, trace_doubtful
from worker.phases.training import FinishedTraining

STAGE = "evaluating"

_SUGGESTED = "suggested/"


@dataclass(frozen=True)
class Outcome:
    """The decisions on the labelled rows, their order, and how many of them are kept.

    Attributes:
        decisions: one number of each kind per labelled row; weight and score are those of the label to train on.
        decided: the same as the method left them, before any label was corrected.
        labels: (N,) class to train on: the given, or the corrected one.
        corrected: (N,) true where it is not the given one.
        added: labels of rows that had none; None where that was not asked for.
        rank: (N,) 0 = kept first; a row is kept where its rank is below `num_kept`.
        num_kept: rows to train on.
        rule: the selection rule in force.
        rule_reason: why this one.
        last_step: steps of the training.
        influences: trusted examples that speak against the most suspicious rows; None where they were not traced.
        noise_cut: noise score above which a row whose label is not the suggested one is likely mislabelled.
        num_cut_off: such rows, last in the order whatever the rule.
        is_calibrated: the noise scores are probabilities, not a ranking alone.
    """

    decisions: Decisions
    decided: Decisions
    labels: NDArray[np.int64]
    corrected: NDArray[np.bool_]
    added: AddedLabels | None
    rank: NDArray[np.int64]
    num_kept: int
    rule: str
    rule_reason: str
    last_step: int
    influences: Influences | None = None
    noise_cut: float = 1.0
    num_cut_off: int = 0
    is_calibrated: bool = True

    @property
    def doubt_above(self) -> float:
        """The noise score above which a given label is called doubtful: one that is a mere ranking has no middle."""
        return DOUBTFUL_NOISE_SCORE if self.is_calibrated else self.noise_cut

    @property
    def num_labels(self) -> int:
        """Rows that can be trained on."""
        return len(self.rank) + (self.added.num_labels if self.added is not None else 0)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(N,) true for the labelled rows to train on."""
        return self.rank < self.num_kept

    @property
    def threshold(self) -> float | None:
        """The score from which on sound rows are kept; None where the keep decision is no such cut by score."""
        num_sound = self.num_labels - self.num_cut_off
        if self.rule != "top" or self.num_kept > num_sound:
            return None
        score, rank = self.decisions.score, self.rank
        if self.added is not None:
            score, rank = np.concatenate([score, self.added.score]), np.concatenate([rank, self.added.rank])
        lowest = score[(rank >= 0) & (rank < self.num_kept)].min()
        dropped = score[(rank >= self.num_kept) & (rank < num_sound)]
        return None if len(dropped) and dropped.max() > lowest else float(lowest)


def score(
    context: AttemptContext,
    data: JobData,
    training: FinishedTraining | None,
    saved: Checkpoint | None,
    boundary: StepBoundary,
) -> Outcome:
    """Decide on every labelled row, or take the decisions from a checkpoint made after the training.

    Raises:
        NonFiniteError: the training loss stopped being finite.
    """
    context.progress.enter_phase(Phase.SCORING, "scoring every labelled row")
    if training is None:
        assert saved is not None, "without a training there is a checkpoint from after it"
        decisions, last_step = import_decisions(saved.tensors, saved.values), int(saved.values["last_step"])
        suggestions, influences = _import_suggestions(saved), import_influences(saved.tensors)
    else:
        decisions = _add_facts(context, data, training.method.finish(training.state))
        last_step = _read_integer(decisions.facts, "num_base_steps")
        suggestions = _suggest(context, data, training)
        influences = trace_doubtful(context, data, training, decisions)
    relabelling = _relabel(context, data, decisions, suggestions)
    outcome = replace(_select(context, data, decisions, relabelling, last_step), influences=influences)
    context.progress.add_event("selection", f"selection rule {outcome.rule_reason}")
    if training is not None:
        boundary.save(make_checkpoint(outcome, {}, {}, 0))
    return outcome


def _add_facts(context: AttemptContext, data: JobData, decisions: Decisions) -> Decisions:
    """Add to the facts that the training was shortened, where it was, and what a check has found."""
    if data.cut is not None:
        decisions = replace(decisions, facts={**decisions.facts, "schedule": data.cut.to_json()})
    return _add_check(context, data, decisions)


def _add_check(context: AttemptContext, data: JobData, decisions: Decisions) -> Decisions:
    """Add to the facts, where the document asks for it, how exact the method's hypergradients are on this network."""
    method = context.document.method
    if not method.check:
        return decisions
    context.progress.add_event("check", "comparing hypergradients with automatic differentiation")
    network = data.builder.build(data.options.seed)
    check = check_hypergradient(network, data.train, data.meta, data.options, method=method.name, device=context.device)
    return replace(decisions, facts={**decisions.facts, "hypergradient_check": check.to_json()})


def make_checkpoint(
    outcome: Outcome, tensors: Mapping[str, Tensor], values: Mapping[str, JSON], num_steps: int
) -> Checkpoint:
    """Return a checkpoint from after the training: the decisions, and what the evaluation adds after `num_steps`."""
    arrays, header = export_decisions(outcome.decided)
    arrays |= export_influences(outcome.influences)
    if outcome.added is not None:
        suggestions = outcome.added.suggestions
        arrays[f"{_SUGGESTED}rows"] = torch.from_numpy(suggestions.rows)
        arrays[f"{_SUGGESTED}probabilities"] = torch.from_numpy(suggestions.probabilities)
        if suggestions.representation is not None:
            arrays[f"{_SUGGESTED}representation"] = torch.from_numpy(suggestions.representation)
    header["last_step"] = outcome.last_step
    return Checkpoint(STAGE, outcome.last_step + 1 + num_steps, {**arrays, **tensors}, {**header, **values})


def _suggest(context: AttemptContext, data: JobData, training: FinishedTraining) -> Suggestions | None:
    """Ask the trained method for the labels of the rows that have none, where the document wants them."""
    spec = context.document.relabelling
    if spec is None or not spec.unlabelled:
        return None
    unlabelled = data.unlabelled
    if unlabelled is None:
        return None
    assert isinstance(training.method, SuggestsLabels), "the document's rules let only such methods label rows"
    probabilities = training.method.suggest(training.state, unlabelled.examples)
    points = training.method.represent(training.state, unlabelled.examples)
    return Suggestions(
        unlabelled.rows, np.asarray(probabilities, dtype=np.float32), np.asarray(points, dtype=np.float32)
    )


def _import_suggestions(saved: Checkpoint) -> Suggestions | None:
    rows = saved.tensors.get(f"{_SUGGESTED}rows")
    if rows is None:
        return None
    points = saved.tensors.get(f"{_SUGGESTED}representation")
    probabilities = saved.tensors[f"{_SUGGESTED}probabilities"].numpy()
    return Suggestions(rows.numpy(), probabilities, None if points is None else points.numpy())


def _relabel(
    context: AttemptContext, data: JobData, decisions: Decisions, suggestions: Suggestions | None
) -> Relabelling:
    """Return the labels to train on: as given, unless the task is to correct them."""
    spec, given = context.document.relabelling, data.train.labels.numpy()
    if spec is None:
        return leave_labels(decisions, given)
    relabelling = correct_labels(decisions, given, spec, suggestions)
    done = f"{write_count(int(relabelling.corrected.sum()), 'label')} corrected"
    if relabelling.added is not None:
        done += f", {write_count(relabelling.added.num_labels, 'row')} without a label labelled"
    context.progress.add_event("relabel", done)
    if not _is_calibrated(decisions):
        context.progress.add_event("relabel", warn_uncalibrated(decisions.method))
    return relabelling


def _select(
    context: AttemptContext, data: JobData, decided: Decisions, relabelling: Relabelling, last_step: int
) -> Outcome:
    selection, keep_fraction = context.document.selection, context.document.keep_fraction
    candidates = relabelling.candidates
    has_meta_set = data.meta is not None and data.method_name not in META_FREE_BASELINES
    rule, reason = choose_rule(selection.rule, keep_fraction, candidates.labels, has_meta_set=has_meta_set)
    calibrated = _is_calibrated(decided)
    noise_cut = choose_noise_cut(selection.noise_cut, is_calibrated=calibrated)
    order = order_rows(
        candidates.score,
        candidates.labels,
        rule,
        selection.class_floor,
        noise_score=candidates.doubt,
        representation=candidates.representation,
        noise_cut=noise_cut,
    )
    num_labels, num_rows = len(order), len(data.tables.train)
    num_cut_off = int(find_cut_off(candidates.doubt, noise_cut, num_labels).sum())
    num_sound = num_labels - num_cut_off
    num_kept = count_kept(keep_fraction, num_rows, num_labels)
    advised = _find_sound_fraction(num_sound, num_rows) if context.document.task == "prune" else None
    rank, added = relabelling.share_ranks(order)
    return Outcome(
        decisions=relabelling.decisions,
        decided=decided,
        labels=relabelling.labels,
        corrected=relabelling.corrected,
        added=added,
        rank=rank,
        num_kept=num_kept,
        rule=rule,
        rule_reason=reason + _tell_cut(num_cut_off, num_kept - num_sound, advised),
        last_step=last_step,
        noise_cut=noise_cut,
        num_cut_off=num_cut_off,
        is_calibrated=calibrated,
    )


def _is_calibrated(decisions: Decisions) -> bool:
    """Tell whether the noise scores were fitted to trusted labels, which makes them probabilities."""
    return decisions.facts.get("detector") is not None or decisions.method == "recalibrated"


def warn_uncalibrated(method: str) -> str:
    """Return what to say of labels that were corrected by noise scores that are no probabilities."""
    remedy = "at least ten trusted examples make"
    if method in BASELINES:
        remedy = "method sama with at least ten trusted examples makes"
    return f"The corrections rest on uncalibrated scores: look at them before use; {remedy} them probabilities."


def _tell_cut(num_cut_off: int, num_kept_of_them: int, advised: float | None) -> str:
    """Return what to say of the rows that stand last as likely mislabelled."""
    if num_cut_off == 0:
        return ""
    told = f"; {write_count(num_cut_off, 'likely mislabelled row')} last"
    if num_kept_of_them > 0:
        told += f", {write_count(num_kept_of_them)} of them kept, since the keep fraction leaves room"
        if advised is not None:
            told += f"; a keep fraction of {advised:g} drops them all"
    return told


def _find_sound_fraction(num_sound: int, num_rows: int) -> float | None:
    """Return a short keep fraction that keeps sound rows alone, nearly all of them; None where there is none."""
    for scale in (100, 10_000):
        if num_sound * scale >= num_rows:
            return num_sound * scale // num_rows / scale
    return None


def _read_integer(facts: Mapping[str, JSON], name: str) -> int:
    value = facts[name]
    assert isinstance(value, int)
    return value
