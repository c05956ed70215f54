"""Planting errors: a seeded share of the labels is replaced by wrong ones in a copy of them.

Legend: N labelled curated rows, C classes, V votes a row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.jobs.document import PlantSpec

_STREAM = 0x9147
_FEWEST_JUDGED = 2


@dataclass(frozen=True)
class Planting:
    """A copy of the labels with errors in it.

    Attributes:
        labels: (N,) the labels of the copy.
        is_planted: (N,) true where it is another than the given one.
        is_judged: (N,) true where a label might have been planted: false for trusted rows.
    """

    labels: NDArray[np.int64]
    is_planted: NDArray[np.bool_]
    is_judged: NDArray[np.bool_]


def plant_errors(
    labels: NDArray[np.int64],
    is_trusted: NDArray[np.bool_],
    plant: PlantSpec,
    *,
    num_classes: int,
    seed: int,
    probabilities: NDArray[np.float32] | None = None,
) -> Planting | None:
    """Return a copy of the labels with errors, a function of the arguments alone; None with fewer than two such rows.

    Args:
        labels: (N,) given labels, 0..C-1.
        is_trusted: (N,) rows that are left as they are.
        plant: rate and kind. `uniform` draws any other class; `confusion` draws class k for a row of class c as often
            as the given labels seem to say k where c is right.
        num_classes: C.
        seed: of the draw.
        probabilities: (N, C) of each class to be the true label, by the job's own method; needed for `confusion`.
    """
    generator = np.random.default_rng([_STREAM, seed])
    judged = np.flatnonzero(~is_trusted)
    if len(judged) < _FEWEST_JUDGED:
        return None
    chosen = np.sort(generator.permutation(judged)[: max(1, round(plant.rate * len(judged)))])
    planted = labels.copy()
    if plant.kind == "uniform":
        planted[chosen] = (labels[chosen] + generator.integers(1, num_classes, len(chosen))) % num_classes
    else:
        assert probabilities is not None, "the document is refused with a method that finds none"
        confusion_CC = measure_confusion(labels, probabilities)
        planted[chosen] = _draw_wrong(confusion_CC[labels[chosen]], generator)
    is_planted = np.zeros(len(labels), dtype=np.bool_)
    is_planted[chosen] = True
    return Planting(planted, is_planted, ~is_trusted)


def measure_confusion(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how the given labels are wrong: row c is the chance of each other class, where c is right and they err.

    A class that is never mistaken is mistaken for every other one alike.

    Example:
        >>> probabilities = np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0]], dtype=np.float32)
        >>> measure_confusion(np.array([0, 1]), probabilities).round(2).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    """
    num_classes = probabilities.shape[1]
    joint_CC = np.zeros((num_classes, num_classes))  # true class, given class
    np.add.at(joint_CC.T, labels, probabilities.astype(np.float64))
    np.fill_diagonal(joint_CC, 0.0)
    is_never = joint_CC.sum(axis=1) == 0.0
    joint_CC[is_never] = 1.0 - np.eye(num_classes)[is_never]
    return np.asarray(joint_CC / joint_CC.sum(axis=1, keepdims=True))


def _draw_wrong(chances: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Return one class for each row of chances; a class of chance 0, such as the right one, is never drawn."""
    edges = chances.cumsum(axis=1)
    edges /= edges[:, -1:]
    return np.asarray((edges <= generator.random((len(chances), 1))).sum(axis=1), dtype=np.int64)


def move_votes(votes: NDArray[Any], planting: Planting, seed: int) -> NDArray[Any]:
    """Return votes (N, V) in which each planted row has those of another row of its new class.

    Left as they were the votes would give a planted error away: wrong votes are what makes a weak label wrong.
    """
    generator = np.random.default_rng([_STREAM, seed, 1])
    moved = votes.copy()
    for label in np.unique(planting.labels[planting.is_planted]):
        rows = np.flatnonzero(planting.is_planted & (planting.labels == label))
        donors = np.flatnonzero(~planting.is_planted & (planting.labels == label))
        if len(donors):
            moved[rows] = votes[generator.choice(donors, len(rows))]
    return moved
