"""Relabelling: which label to train on, and what a row is worth under another label than the given one.

Legend: N rows with a given label, U rows without one, L rows with a label to train on, C classes.
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
        representation: (U, D) what the network makes of them, as in the decisions; None where that is not known.
    """

    rows: NDArray[np.int64]
    probabilities: Floats
    representation: Floats | None = None

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
        score: (U,) higher = more worth keeping, NaN where there is no label.
        rank: (U,) place in the order of all rows with a label; -1 where there is none, or no order yet.
    """

    suggestions: Suggestions
    labels: NDArray[np.int64]
    weight: Floats
    score: Floats
    rank: NDArray[np.int64]

    @property
    def num_labels(self) -> int:
        """Rows that have a label now."""
        return int((self.labels != NO_LABEL).sum())


@dataclass(frozen=True)
class Candidates:
    """The rows that can be trained on: those with a given label, then those labelled for the first time.

    Attributes:
        score: (L,) higher = more worth keeping.
        labels: (L,) class to train on.
        doubt: (L,) probability that it is wrong; 0 where it is the suggested one.
        representation: (L, D) what the network makes of each row, or None.
    """

    score: Floats
    labels: NDArray[np.int64]
    doubt: Floats
    representation: Floats | None


@dataclass(frozen=True)
class Relabelling:
    """The labels to train on.

    Attributes:
        decisions: the method's, with weight and score of corrected rows as their new label deserves; the spread of
            such a weight is not known (NaN).
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

    @property
    def candidates(self) -> Candidates:
        """The rows to put in order."""
        decisions, added = self.decisions, self.added
        # A row under the label that the evidence points to is not mislabelled, however unsure that label is.
        doubt = np.where(decisions.suggested != self.labels, decisions.noise_score, np.float32(0))
        points = decisions.representation
        if added is None:
            return Candidates(decisions.score, self.labels, doubt, points)
        new, more = added.labels != NO_LABEL, added.suggestions.representation
        return Candidates(
            np.concatenate([decisions.score, added.score[new]]),
            np.concatenate([self.labels, added.labels[new]]),
            np.concatenate([doubt, np.zeros(int(new.sum()), dtype=np.float32)]),
            None if points is None or more is None else np.concatenate([points, more[new]]),
        )

    def share_ranks(self, rank: NDArray[np.int64]) -> tuple[NDArray[np.int64], AddedLabels | None]:
        """Return the ranks (L,) of the candidates as those of the rows with a given label (N,) and of the others."""
        if self.added is None:
            return rank, None
        ranks = np.full(len(self.added.labels), NO_LABEL, dtype=np.int64)
        ranks[self.added.labels != NO_LABEL] = rank[len(self.labels) :]
        return rank[: len(self.labels)], replace(self.added, rank=ranks)


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
    spread[corrected] = np.nan
    added = None if suggestions is None else _add_labels(suggestions, spec, unchanged)
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


def _add_labels(suggestions: Suggestions, spec: RelabelSpec, unchanged: _Unchanged) -> AddedLabels:
    confidence = suggestions.confidence
    sure = confidence >= spec.min_confidence
    return AddedLabels(
        suggestions=suggestions,
        labels=np.where(sure, suggestions.suggested, NO_LABEL),
        weight=np.where(sure, unchanged.match_weight(confidence), np.float32(0)).astype(np.float32),
        score=np.where(sure, unchanged.match_score(confidence), np.float32(np.nan)).astype(np.float32),
        rank=np.full(len(confidence), NO_LABEL, dtype=np.int64),
    )
