"""The curated rows that no one has labelled, encoded like the others, for a trained method to suggest labels to."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sama_core import AbstractExamples
from service.jobs.document import JobDocument
from service.storage.roles import RoleTable
from worker.data.arrays import ArrayFolder
from worker.data.examples import AbstractEncoder, Part


@dataclass(frozen=True)
class UnlabelledRows:
    """Rows without a label.

    Attributes:
        rows: (U,) their numbers among all curated rows, ascending.
        examples: the same rows as a data set; its labels stand for nothing.
    """

    rows: NDArray[np.int64]
    examples: AbstractExamples


@runtime_checkable
class SuggestsLabels(Protocol):
    """A curation method that can say, once trained, what the labels of other examples are."""

    def suggest(self, state: Any, examples: AbstractExamples) -> Tensor | NDArray[np.float32]:
        """Return the probability of each class (U, C) for examples whose labels are not looked at."""

    def represent(self, state: Any, examples: AbstractExamples) -> Tensor | NDArray[np.float32]:
        """Return what the network makes of them (U, D), as the decisions have it of the others."""


def encode_unlabelled(
    document: JobDocument, train: RoleTable, encoder: AbstractEncoder, num_classes: int, folder: ArrayFolder
) -> UnlabelledRows | None:
    """Encode the curated rows without a label; None where the document does not ask for them, or there are none."""
    relabelling = document.relabelling
    rows = np.flatnonzero(train.labels < 0)
    if relabelling is None or not relabelling.unlabelled or len(rows) == 0:
        return None
    # Encoders take a label with every example; no one reads these.
    part = Part("unlabelled", train.inputs, rows, np.zeros(len(rows), dtype=np.int64))
    return UnlabelledRows(rows, encoder.encode(part, num_classes, folder))
