"""The trusted examples that speak against a suspicious one, as a table and as pages show them."""

import base64
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sama_core.influences import Influences
from service.results.influences import influences_schema
from service.storage.arrow_types import Array, ChunkedArray
from service.storage.roles import DatasetTables, RoleTable
from worker.results.text import clean_text
from worker.results.thumbnails import render_input

MOST_TOLD = 3
_MAX_CHARACTERS = 160


def tabulate_influences(influences: Influences, tables: DatasetTables, labelled: NDArray[np.int64]) -> pa.RecordBatch:
    """Return the columns of `influences.parquet`, in the order of the influences.

    `labelled` are the numbers of the rows that were trained on among all curated rows.
    """
    train, meta = tables.train, tables.meta
    assert meta is not None, "influences are those of a meta set"
    places, ranks = np.nonzero(influences.trusted.numpy() >= 0)
    rows = labelled[influences.rows.numpy()[places]]
    meta_rows = find_trusted_rows(meta)[influences.trusted.numpy()[places, ranks]]
    columns = [
        pa.array(rows),
        _take(train.ids, rows),
        pa.array(ranks + 1),
        pa.array(meta_rows),
        _take(meta.ids, meta_rows),
        meta.label_map.decode(meta.labels[meta_rows]),
        pa.array(influences.values.numpy()[places, ranks]),
    ]
    schema = influences_schema(train.ids.type, meta.ids.type, meta.label_map.type)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def find_trusted_rows(meta: RoleTable) -> NDArray[np.int64]:
    """Return the rows of the meta set that are trusted examples: those with a label."""
    return np.flatnonzero(meta.labels >= 0)


def _take(column: ChunkedArray, rows: NDArray[np.int64]) -> Array:
    return column.take(rows).combine_chunks()


class InfluenceTeller:
    """Tells, for rows whose influences were traced, which trusted examples pull them down the most."""

    def __init__(
        self, influences: Influences | None, tables: DatasetTables, labelled: NDArray[np.int64], max_pixels: int
    ) -> None:
        self._influences = influences
        self._tables = tables
        self._labelled = labelled
        self._max_pixels = max_pixels
        self._rendered: dict[int, dict[str, Any]] = {}

    def tell(self, row: int) -> list[dict[str, Any]]:
        """Return the strongest first, as JSON; empty for a row that was not traced. `row` is that of a curated row."""
        place = self._places.get(row)
        if place is None or self._influences is None:
            return []
        trusted, values = (part[place].tolist() for part in (self._influences.trusted, self._influences.values))
        strongest = max((abs(value) for value in values), default=0.0)
        return [
            {**self._describe(number), "strength": abs(value) / strongest, "value": value}
            for number, value in zip(trusted[:MOST_TOLD], values, strict=False)
            if number >= 0 and strongest > 0
        ]

    @cached_property
    def _places(self) -> dict[int, int]:
        if self._influences is None or self._tables.meta is None:
            return {}
        return {int(self._labelled[row]): place for place, row in enumerate(self._influences.rows.tolist())}

    @cached_property
    def _trusted_rows(self) -> NDArray[np.int64]:
        return find_trusted_rows(self._meta)

    @property
    def _meta(self) -> RoleTable:
        assert self._tables.meta is not None, "influences are those of a meta set"
        return self._tables.meta

    def _describe(self, number: int) -> dict[str, Any]:
        """Return what is shown of one trusted example."""
        if number not in self._rendered:
            meta, row = self._meta, int(self._trusted_rows[number])
            (shown,) = meta.inputs.slice(row, 1).to_pylist()
            seen = render_input(self._tables.kind, shown, self._max_pixels)
            image = None
            if seen.image is not None:
                image = f"data:{seen.image_type};base64,{base64.b64encode(seen.image).decode()}"
            self._rendered[number] = {
                "example_id": clean_text(str(meta.ids[row].as_py())),
                "label": clean_text(str(meta.label_map.values[meta.labels[row]])),
                "text": None if seen.text is None else seen.text[:_MAX_CHARACTERS],
                "image": image,
            }
        return self._rendered[number]
