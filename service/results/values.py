"""Rows of results as plain values, for JSON and CSV."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def shorten_floats(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with float32 columns as float64 of the same shortest decimal: 0.1, not 0.10000000149.

    >>> batch = pa.record_batch({"weight": pa.array([0.1], pa.float32())})
    >>> shorten_floats(batch).to_pylist()
    [{'weight': 0.1}]
    """
    columns = [
        pc.cast(pc.cast(column, pa.string()), pa.float64()) if pa.types.is_float32(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def list_values(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield each row as a mapping of column to plain value."""
    names = batch.schema.names
    for values in zip(*(column.to_pylist() for column in shorten_floats(batch).columns), strict=True):
        yield dict(zip(names, values, strict=True))
