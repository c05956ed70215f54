"""What was decided about every row that has a label or a suggested one, as columns of numbers in input order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.storage.arrow_types import Array
from service.storage.labels import UNLABELLED_CODE
from worker.phases.relabelling import NO_LABEL
from worker.phases.scoring import Outcome

CODE_COLUMNS = ("suggested_label", "label")


@dataclass(frozen=True)
class Ledger:
    """Numbers on M of the curated rows.

    Attributes:
        rows: (M,) their numbers among all curated rows, ascending.
        columns: by name, (M,) each; NaN, or -1 in whole numbers, where a row has none. Labels are class codes.
    """

    rows: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]

    def cut(self, start: int, stop: int) -> "Ledger":
        """Return the part on the rows from `start` to before `stop`, numbered from 0."""
        first, after = np.searchsorted(self.rows, [start, stop])
        return Ledger(
            self.rows[first:after] - start, {name: array[first:after] for name, array in self.columns.items()}
        )

    def spread(self, name: str, size: int) -> Array:
        """Return one column laid out over `size` rows, null where there is no number."""
        is_float = self.columns[name].dtype.kind == "f"
        numbers = self._lay_out(name, size, np.nan if is_float else -1)
        column: Array = pa.array(numbers, mask=np.isnan(numbers) if is_float else numbers < 0)
        return column

    def spread_codes(self, name: str, size: int) -> NDArray[np.int64]:
        """Return one column of class codes laid out over `size` rows, -1 where there is none."""
        return self._lay_out(name, size, UNLABELLED_CODE)

    def _lay_out(self, name: str, size: int, missing: float) -> NDArray[Any]:
        values = self.columns[name]
        laid_out = np.full(size, missing, dtype=values.dtype)
        laid_out[self.rows] = values
        return laid_out


def open_ledger(labelled: NDArray[np.int64], outcome: Outcome) -> Ledger:
    """Enter the rows with a given label, and those without one for which one was suggested."""
    decisions, added = outcome.decisions, outcome.added
    columns: dict[str, NDArray[Any]] = {
        "given_weight": outcome.decided.weight,
        "given_score": outcome.decided.score,
        "weight": decisions.weight,
        "weight_std": decisions.weight_std,
        "score": decisions.score,
        "rank": outcome.rank,
        "noise_score": decisions.noise_score,
        "suggested_label": decisions.suggested,
        "label_confidence": decisions.label_confidence,
        "label": outcome.labels,
    }
    if added is None:
        return Ledger(labelled, columns)
    has_label = added.labels != NO_LABEL
    unknown = np.full(len(has_label), np.nan, dtype=np.float32)
    more: dict[str, NDArray[Any]] = {
        "given_weight": unknown,
        "given_score": unknown,
        "weight": np.where(has_label, added.weight, unknown),
        "weight_std": unknown,
        "score": added.score,
        "rank": added.rank,
        "noise_score": unknown,
        "suggested_label": added.suggestions.suggested,
        "label_confidence": added.suggestions.confidence,
        "label": added.labels,
    }
    rows = np.concatenate([labelled, added.suggestions.rows])
    order = np.argsort(rows)
    return Ledger(rows[order], {name: np.concatenate([columns[name], more[name]])[order] for name in columns})
