"""Previews: the most suspicious, the lightest and the newly labelled examples, each with something to look at."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.results.tables import PreviewTable
from service.storage.roles import DatasetTables
from worker.phases.relabelling import NO_LABEL, AddedLabels
from worker.phases.scoring import Outcome
from worker.results.influences import InfluenceTeller
from worker.results.text import clean_text
from worker.results.thumbnails import Thumbnail, render_input

NUM_SUSPICIOUS = 200
NUM_LIGHTEST = 100
NUM_ADDED = 48


class PreviewBuilder:
    """Chooses the rows to preview, collects what was stored of them, and renders their inputs."""

    def __init__(self, tables: DatasetTables, labelled: NDArray[np.int64], outcome: Outcome, max_pixels: int) -> None:
        self._tables = tables
        self._max_pixels = max_pixels
        self._influences = InfluenceTeller(outcome.influences, tables, labelled, max_pixels)
        by_noise = np.argsort(-outcome.decisions.noise_score, kind="stable")
        by_weight = np.argsort(outcome.decisions.weight, kind="stable")
        place = np.empty(len(by_noise), dtype=np.int64)
        place[by_noise] = np.arange(len(by_noise))
        chosen = np.union1d(by_noise[:NUM_SUSPICIOUS], by_weight[:NUM_LIGHTEST])
        self._suspicion_rank = {int(labelled[row]): int(place[row]) for row in chosen}
        if outcome.added is not None:
            least_sure = _find_least_sure(outcome.added)
            self._suspicion_rank |= {int(row): len(labelled) + place for place, row in enumerate(least_sure)}
        self._rows = np.array(sorted(self._suspicion_rank), dtype=np.int64)
        self._stored: list[dict[str, Any]] = []

    def add(self, batch: pa.RecordBatch, row_start: int) -> None:
        """Take the rows to preview out of a chunk."""
        inside = self._rows[(self._rows >= row_start) & (self._rows < row_start + batch.num_rows)]
        self._stored += batch.take(inside - row_start).to_pylist()

    def build(self, job_id: str, attempt: int) -> list[PreviewTable]:
        """Return the previews, by row."""
        inputs = self._tables.train.inputs.take(self._rows).to_pylist()
        return [
            self._build_one(job_id, attempt, stored, render_input(self._tables.kind, shown, self._max_pixels))
            for stored, shown in zip(self._stored, inputs, strict=True)
        ]

    def _build_one(self, job_id: str, attempt: int, stored: Mapping[str, Any], seen: Thumbnail) -> PreviewTable:
        plain = ("label_confidence", "noise_score", "weight", "score", "corrected", "keep")
        given = stored["given_label"]
        return PreviewTable(
            job_id=job_id,
            attempt=attempt,
            row=stored["row"],
            suspicion_rank=self._suspicion_rank[stored["row"]],
            example_id=clean_text(str(stored["id"])),
            given_label=None if given is None else clean_text(str(given)),
            suggested_label=clean_text(str(stored["suggested_label"])),
            label=clean_text(str(stored["label"])),
            reason=clean_text(stored["reason"]),
            influences=self._influences.tell(stored["row"]),
            **{name: stored[name] for name in plain},
            **asdict(seen),
        )


def _find_least_sure(added: AddedLabels) -> NDArray[np.int64]:
    """Return the rows among those labelled for the first time whose labels are the least probable, these first."""
    places = np.flatnonzero(added.labels != NO_LABEL)
    order = np.argsort(added.suggestions.confidence[places], kind="stable")
    return added.suggestions.rows[places[order[:NUM_ADDED]]]
