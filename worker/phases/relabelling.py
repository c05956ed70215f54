"""Relabelling: which label to train on, and what a row is worth under another label than the given one.

Legend: N rows with a given label, U rows without one, C classes.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sama_core import Decisions
from service.jobs.document import RelabelSpec

NO_LABEL = -1

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Suggestions:
    """What a trained method says of the rows that no one has labelled.

    Attributes:
        rows: (U,) their numbers among all curated rows, ascending.
        probabilities: (U, C) probability of each class to be the true label.
    """

    rows: NDArray[np.int64]
    probabilities: Floats

    @property
    def suggested(self) -> NDArray[np.int64]:
        """(U,) the most probable class."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> Floats:
        """(U,) its probability."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float32)


@dataclass(frozen=True)
class AddedLabels:
    """The labels given to rows that had none.

    Attributes:
        suggestions: what was said of them.
        labels: (U,) class to train on, -1 where none is probable enough.
        weight: (U,) loss multiplier, 0 where there is no label.
        rank: (U,) place in the order of all rows with a label, -1 where there is none.
    """

    suggestions: Suggestions
    labels: NDArray[np.int64]
    weight: Floats
    rank: NDArray[np.int64]

    @property
    def num_labels(self) -> int:
        """Rows that have a label now."""
        return int((self.labels != NO_LABEL).sum())


@dataclass(frozen=True)
class Relabelling:
    """The labels to train on.

    Attributes:
        decisions: the method's, with weight and score of corrected rows as their new label deserves.
        labels: (N,) class to train on: the given, or the corrected one.
        corrected: (N,) true where it is not the given one.
        added: labels of rows that had none; None where that was not asked for.
    """

    decisions: Decisions
    labels: NDArray[np.int64]
    corrected: NDArray[np.bool_]
    added: AddedLabels | None

    @property
    def num_labels(self) -> int:
        """Rows that can be trained on."""
        return len(self.labels) + (self.added.num_labels if self.added is not None else 0)


def leave_labels(decisions: Decisions, given: NDArray[np.int64]) -> Relabelling:
    """Return every label as it was given."""
    return Relabelling(decisions, given, np.zeros(len(given), dtype=np.bool_), None)


def correct_labels(
    decisions: Decisions, given: NDArray[np.int64], spec: RelabelSpec, suggestions: Suggestions | None = None
) -> Relabelling:
    """Return the labels to train on.

    A label is corrected where the suggested one is more probable than the given one, at least `min_confidence`
    probable, and the given one doubtful by `min_noise`. Such a row, and one that is labelled for the first time, is
    worth what a row with an unchanged label of the same probability is worth: quantile by quantile it takes over
    that row's weight and score. Left as learned, both would say what the wrong label deserves.

    Rows labelled for the first time come after all others in the order, the surest first.
    """
    assert decisions.probabilities is not None, "the document's rules let only such methods correct labels"
    right_N = decisions.probabilities[np.arange(len(given)), given]
    corrected = (decisions.suggested != given) & (decisions.label_confidence > right_N)
    corrected &= (decisions.label_confidence >= spec.min_confidence) & (decisions.noise_score >= spec.min_noise)
    labels = np.where(corrected, decisions.suggested, given)
    unchanged = _Unchanged(right_N[~corrected], decisions.weight[~corrected], decisions.score[~corrected])
    confidence = decisions.label_confidence[corrected]
    weight, score, spread = decisions.weight.copy(), decisions.score.copy(), decisions.weight_std.copy()
    weight[corrected], score[corrected] = unchanged.match_weight(confidence), unchanged.match_score(confidence)
    spread[corrected] = 0.0
    added = None if suggestions is None else _add_labels(suggestions, spec, unchanged, num_before=len(given))
    total = float(weight.sum(dtype=np.float64)) + (float(added.weight.sum(dtype=np.float64)) if added else 0.0)
    num_labels = len(given) + (added.num_labels if added else 0)
    scale = np.float32(num_labels / total) if total > 0 else np.float32(1)
    valued = replace(decisions, weight=weight * scale, weight_std=spread * scale, score=score)
    return Relabelling(valued, labels, corrected, added and replace(added, weight=added.weight * scale))


@dataclass(frozen=True)
class _Unchanged:
    """The rows whose labels stay: how probable these are, and what the rows are worth."""

    right: Floats
    weight: Floats
    score: Floats

    def match_weight(self, probability: Floats) -> Floats:
        return _match(probability, self.right, self.weight)

    def match_score(self, probability: Floats) -> Floats:
        return _match(probability, self.right, self.score)


def _match(probability: Floats, known: Floats, worth: Floats) -> Floats:
    """Return the worth at the quantile at which each probability lies among the known ones."""
    if len(known) == 0:
        return np.ones(len(probability), dtype=np.float32)
    places = np.searchsorted(np.sort(known), probability, side="right") / len(known)
    return np.quantile(worth.astype(np.float64), np.clip(places, 0.0, 1.0)).astype(np.float32)


def _add_labels(suggestions: Suggestions, spec: RelabelSpec, unchanged: _Unchanged, *, num_before: int) -> AddedLabels:
    confidence = suggestions.confidence
    sure = confidence >= spec.min_confidence
    rank = np.full(len(confidence), NO_LABEL, dtype=np.int64)
    order = np.flatnonzero(sure)[np.argsort(-confidence[sure], kind="stable")]
    rank[order] = num_before + np.arange(len(order))
    return AddedLabels(
        suggestions=suggestions,
        labels=np.where(sure, suggestions.suggested, NO_LABEL),
        weight=np.where(sure, unchanged.match_weight(confidence), np.float32(0)).astype(np.float32),
        rank=rank,
    )
