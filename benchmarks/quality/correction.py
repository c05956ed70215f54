"""How well wrong labels are set right."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sama_core import Decisions
from service.jobs.document import RelabelSpec
from worker.phases.relabelling import Relabelling, correct_labels


@dataclass(frozen=True)
class Correction:
    """Figures over the rows that are judged.

    Attributes:
        mended: share of the wrong labels that were set right.
        broken: share of the right labels that were made wrong.
        changed: share of all labels that were changed.
        right: share of all labels that are right afterwards.
    """

    mended: float
    broken: float
    changed: float
    right: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def relabel(decisions: Decisions, given: NDArray[np.int64]) -> Relabelling | None:
    """Return labels (N,) by the product's default rule; None where the method knows no probabilities."""
    return None if decisions.probabilities is None else correct_labels(decisions, given, RelabelSpec())


def choose_most_doubtful(
    decisions: Decisions, given: NDArray[np.int64], judged: NDArray[np.bool_], count: int
) -> NDArray[np.int64]:
    """Return labels (N,): the suggested one for the ``count`` most doubtful rows that are judged."""
    labels = given.copy()
    rows = np.flatnonzero(judged)
    chosen = rows[np.argsort(-decisions.noise_score[rows], kind="stable")[:count]]
    labels[chosen] = decisions.suggested[chosen]
    return labels


def measure_correction(
    labels: NDArray[np.int64], given: NDArray[np.int64], gold: NDArray[np.int64]
) -> Correction | None:
    """Return the figures of labels (N,); None where no given label is wrong, or all are."""
    wrong = given != gold
    if wrong.all() or not wrong.any():
        return None
    right = labels == gold
    return Correction(
        mended=float(right[wrong].mean()),
        broken=float(1.0 - right[~wrong].mean()),
        changed=float((labels != given).mean()),
        right=float(right.mean()),
    )
