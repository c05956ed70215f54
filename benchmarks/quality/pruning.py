"""Prunings of clean data: accuracy at several shares kept, by equal steps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.methods import OURS
from benchmarks.quality.prepared import PreparedSet
from benchmarks.quality.samplings import draw_by_beta, draw_strata
from benchmarks.quality.trainer import ArmTrainer, Choice
from sama_core import RULES, Decisions, choose_rule, num_kept, order_rows
from sama_core.selection import choose_noise_cut

REMOVED = (0.3, 0.5, 0.7, 0.9)
_NO_FLOOR = 0.0
AUTO = "auto"
_DRAWS = {"aum": ("ccs",), "dual": ("beta",)}


def prune(name: str, decisions: Decisions, prepared: PreparedSet, trainer: ArmTrainer, seed: int) -> dict[str, Any]:
    """Return test accuracy by rule and share removed.

    Ours is cut by every rule of the product; a baseline by its own score alone, and AUM and DUAL also by the draw of
    rows that was published with them: strata of AUM (CCS), and a Beta density.
    """
    labels = prepared.given[prepared.train_rows]
    accuracies: dict[str, dict[str, float]] = {}
    for rule in list_rules(name):
        accuracies[rule] = {}
        for removed in REMOVED:
            rows = _choose(decisions, labels, rule, removed, seed)
            accuracies[rule][str(removed)] = trainer.test(Choice(prepared.given, prepared.train_rows[rows]))
    if name == OURS:
        chosen = {str(removed): choose_rule(AUTO, 1.0 - removed, labels, has_meta_set=False)[0] for removed in REMOVED}
        accuracies[AUTO] = {removed: accuracies[rule][removed] for removed, rule in chosen.items()}
    return {"pruning": accuracies}


def list_rules(name: str) -> tuple[str, ...]:
    """Return the rules by which a method's score is cut."""
    return RULES if name == OURS else ("top", *_DRAWS.get(name, ()))


def _choose(decisions: Decisions, labels: NDArray[np.int64], rule: str, removed: float, seed: int) -> NDArray[np.int64]:
    """Return the rows to keep."""
    count = num_kept(1.0 - removed, len(labels), len(labels))
    if rule == "ccs":
        return draw_strata(decisions.score, count, removed, seed)
    if rule == "beta":
        return draw_by_beta(decisions.score, decisions.evidence["average_p_given"], count, removed, seed)
    rank = _order(decisions, labels, rule, is_ours=decisions.method == OURS)
    return np.flatnonzero(rank < count)


def _order(decisions: Decisions, labels: NDArray[np.int64], rule: str, *, is_ours: bool) -> NDArray[np.int64]:
    """Return the rank of each row: ours as a job without trusted rows makes it, a baseline's by its score alone."""
    if not is_ours:
        return order_rows(decisions.score, labels, rule, _NO_FLOOR)
    return order_rows(
        decisions.score,
        labels,
        rule,
        noise_score=decisions.noise_score,
        representation=decisions.representation,
        noise_cut=choose_noise_cut(None, is_calibrated=False),
    )
