"""Scoring: what the training has shown becomes a decision on every labelled row, and an order of them all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core import JSON, Decisions, check_hypergradient
from sama_core.selection import choose_rule, order_rows
from service.jobs.state import Phase
from service.results.rows import count_kept
from worker.checkpoints import Checkpoint
from worker.context import AttemptContext, StepBoundary
from worker.phases.reading import JobData
from worker.phases.training import FinishedTraining

STAGE = "evaluating"

_PREFIX = "decisions/"
_ARRAYS = ("weight", "weight_std", "score", "noise_score", "suggested", "label_confidence")


@dataclass(frozen=True)
class Outcome:
    """The decisions on the labelled rows, their order, and how many of them are kept.

    Attributes:
        decisions: one number of each kind per labelled row.
        rank: (N,) 0 = kept first; a row is kept where its rank is below `num_kept`.
        num_kept: rows to train on.
        rule: the selection rule in force.
        rule_reason: why this one.
        last_step: steps of the training.
    """

    decisions: Decisions
    rank: NDArray[np.int64]
    num_kept: int
    rule: str
    rule_reason: str
    last_step: int

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(N,) true for the labelled rows to train on."""
        return self.rank < self.num_kept


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
        decisions, last_step = _import_decisions(saved), int(saved.values["last_step"])
    else:
        decisions = _add_check(context, data, training.method.finish(training.state))
        last_step = _read_integer(decisions.facts, "num_base_steps")
    outcome = _select(context, data, decisions, last_step)
    context.progress.add_event("selection", f"selection rule {outcome.rule_reason}")
    if training is not None:
        boundary.save(make_checkpoint(outcome, {}, {}, 0))
    return outcome


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
    decisions = outcome.decisions
    arrays = {f"{_PREFIX}{name}": torch.from_numpy(np.array(getattr(decisions, name))) for name in _ARRAYS}
    header = {"method": decisions.method, "facts": dict(decisions.facts), "last_step": outcome.last_step}
    return Checkpoint(STAGE, outcome.last_step + 1 + num_steps, {**arrays, **tensors}, {**header, **values})


def _import_decisions(saved: Checkpoint) -> Decisions:
    arrays = {name: saved.tensors[f"{_PREFIX}{name}"].numpy() for name in _ARRAYS}
    return Decisions(method=saved.values["method"], facts=saved.values["facts"], **arrays)


def _select(context: AttemptContext, data: JobData, decisions: Decisions, last_step: int) -> Outcome:
    selection, keep_fraction = context.document.selection, context.document.keep_fraction
    labels = data.train.labels.numpy()
    rule, reason = choose_rule(selection.rule, keep_fraction, labels)
    rank = order_rows(decisions.score, labels, rule, selection.class_floor)
    num_kept = count_kept(keep_fraction, len(data.tables.train), len(labels))
    return Outcome(decisions, rank, num_kept, rule, reason, last_step)


def _read_integer(facts: Mapping[str, JSON], name: str) -> int:
    value = facts[name]
    assert isinstance(value, int)
    return value
