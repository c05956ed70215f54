"""The per-example rows of a job, a chunk at a time, in input order; nothing in them depends on time or attempt."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.results.reasons import Terms
from service.results.rows import FINDING, SOFT_LABEL, apply_num_kept, limit_chunk_rows, stored_schema
from service.storage.arrow_types import Array, ChunkedArray
from service.storage.roles import RoleTable
from worker.phases.relabelling import NO_LABEL
from worker.phases.scoring import Outcome
from worker.results.findings import FindingWriter
from worker.results.ledger import CODE_COLUMNS, open_ledger


@dataclass(frozen=True)
class Chunk:
    """Some rows in a row: the number of the first one among all curated rows, and the batch to store."""

    index: int
    row_start: int
    batch: pa.RecordBatch


class RowBuilder:
    """Joins what is known of the curated rows with what was decided about those that have or were given a label.

    With `num_soft` classes, each such row has its soft label too.
    """

    def __init__(self, train: RoleTable, labelled: NDArray[np.int64], outcome: Outcome, *, num_soft: int = 0) -> None:
        self._train = train
        self._labelled = labelled
        self._outcome = outcome
        self._num_soft = num_soft
        self._ledger = open_ledger(labelled, outcome)
        self._findings = FindingWriter(outcome, train.labels[labelled], train.label_map)
        self._schema = stored_schema(train.ids.type, train.label_map.type, num_soft)

    def chunks(self) -> Iterator[Chunk]:
        """Yield every chunk in order."""
        num_rows, outcome = limit_chunk_rows(self._num_soft), self._outcome
        terms = Terms(outcome.rule, outcome.doubt_above)
        for index, start in enumerate(range(0, len(self._train), num_rows)):
            batch = self._build(start, min(start + num_rows, len(self._train)))
            yield Chunk(index, start, apply_num_kept(batch, outcome.num_kept, terms))

    def _build(self, start: int, stop: int) -> pa.RecordBatch:
        train, size = self._train, stop - start
        part = self._ledger.cut(start, stop)
        given = train.labels[start:stop]
        codes = {name: part.spread_codes(name, size) for name in CODE_COLUMNS}
        numbers = {name: part.spread(name, size) for name in part.columns if name not in CODE_COLUMNS}
        columns: dict[str, Array] = {
            "row": pa.array(np.arange(start, stop, dtype=np.int64)),
            "id": _slice(train.ids, start, size),
            "content_sha256": _slice(train.content_sha256, start, size),
            "source": _slice(train.source, start, size),
            "given_label": train.label_map.decode(given),
            **numbers,
            **{name: train.label_map.decode(labels) for name, labels in codes.items()},
            "corrected": pa.array(codes["label"] != given),
            "keep": pa.nulls(size, pa.bool_()),
            "reason": pa.nulls(size, pa.string()),
            FINDING: self._write_findings(start, stop),
        }
        if self._num_soft:
            columns[SOFT_LABEL] = self._build_soft_labels(start, stop)
        return pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)

    def _write_findings(self, start: int, stop: int) -> Array:
        findings = np.full(stop - start, "", dtype=object)
        first, after = (int(place) for place in np.searchsorted(self._labelled, [start, stop]))
        findings[self._labelled[first:after] - start] = list(self._findings.write(first, after))
        added = self._outcome.added
        if added is not None:
            rows = added.suggestions.rows
            first, after = (int(place) for place in np.searchsorted(rows, [start, stop]))
            findings[rows[first:after] - start] = list(self._findings.write_added(added, first, after))
        return pa.array(findings, pa.string())

    def _build_soft_labels(self, start: int, stop: int) -> Array:
        """Return the probability of each class for the rows that have a label now, null for the others."""
        size, added = stop - start, self._outcome.added
        soft = np.zeros((size, self._num_soft), dtype=np.float32)
        missing = np.ones(size, dtype=np.bool_)
        probabilities = self._outcome.decided.probabilities
        assert probabilities is not None, "the document's rules let only such methods correct labels"
        parts = [(self._labelled, probabilities)]
        if added is not None:
            has_label = added.labels != NO_LABEL
            parts.append((added.suggestions.rows[has_label], added.suggestions.probabilities[has_label]))
        for rows, shares in parts:
            first, after = np.searchsorted(rows, [start, stop])
            places = rows[first:after] - start
            soft[places], missing[places] = shares[first:after], False
        return pa.FixedSizeListArray.from_arrays(pa.array(soft.ravel()), self._num_soft, mask=pa.array(missing))


def _slice(column: ChunkedArray, start: int, size: int) -> Array:
    return pa.concat_arrays(column.slice(start, size).chunks)
