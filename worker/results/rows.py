"""The per-example rows of a job, a chunk at a time, in input order; nothing in them depends on time or attempt."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sama_core import Decisions
from service.results.rows import CHUNK_ROWS, apply_num_kept, rows_schema
from service.storage.arrow_types import Array, ChunkedArray
from service.storage.labels import UNLABELLED_CODE
from service.storage.roles import RoleTable
from worker.phases.scoring import Outcome


@dataclass(frozen=True)
class Chunk:
    """Some rows in a row: the number of the first one among all curated rows, and the batch to store."""

    index: int
    row_start: int
    batch: pa.RecordBatch


class RowBuilder:
    """Joins what is known of the curated rows with what was decided about the labelled ones."""

    def __init__(self, train: RoleTable, labelled: NDArray[np.int64], outcome: Outcome) -> None:
        self._train = train
        self._labelled = labelled
        self._outcome = outcome
        self._schema = rows_schema(train.ids.type, train.label_map.type)

    def chunks(self) -> Iterator[Chunk]:
        """Yield every chunk in order."""
        for index, start in enumerate(range(0, len(self._train), CHUNK_ROWS)):
            batch = self._build(start, min(start + CHUNK_ROWS, len(self._train)))
            yield Chunk(index, start, apply_num_kept(batch, self._outcome.num_kept))

    def _build(self, start: int, stop: int) -> pa.RecordBatch:
        first, after = (int(place) for place in np.searchsorted(self._labelled, [start, stop]))
        part = _Spread(self._labelled[first:after] - start, stop - start)
        decided: Decisions = self._outcome.decisions
        train, label_map = self._train, self._train.label_map
        size = stop - start
        columns = {
            "row": pa.array(np.arange(start, stop, dtype=np.int64)),
            "id": _slice(train.ids, start, size),
            "content_sha256": _slice(train.content_sha256, start, size),
            "source": _slice(train.source, start, size),
            "given_label": label_map.decode(train.labels[start:stop]),
            "weight": part.spread(decided.weight[first:after]),
            "weight_std": part.spread(decided.weight_std[first:after]),
            "score": part.spread(decided.score[first:after]),
            "rank": part.spread(self._outcome.rank[first:after]),
            "noise_score": part.spread(decided.noise_score[first:after]),
            "suggested_label": label_map.decode(part.spread_codes(decided.suggested[first:after])),
            "label_confidence": part.spread(decided.label_confidence[first:after]),
            "keep": pa.nulls(size, pa.bool_()),
            "reason": pa.nulls(size, pa.string()),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)


class _Spread:
    """Numbers of labelled rows laid out over all rows of a chunk, null between."""

    def __init__(self, places: NDArray[np.int64], size: int) -> None:
        self._places = places
        self._size = size

    def spread(self, values: NDArray[Any]) -> Array:
        laid_out = np.zeros(self._size, dtype=values.dtype)
        laid_out[self._places] = values
        missing = np.ones(self._size, dtype=np.bool_)
        missing[self._places] = False
        return pa.array(laid_out, mask=missing)

    def spread_codes(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        laid_out = np.full(self._size, UNLABELLED_CODE, dtype=np.int64)
        laid_out[self._places] = codes
        return laid_out


def _slice(column: ChunkedArray, start: int, size: int) -> Array:
    return pa.concat_arrays(column.slice(start, size).chunks)
