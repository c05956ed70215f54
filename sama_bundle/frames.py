"""Frames of pandas, polars and Arrow: filtered to the rows to train on, with columns of the bundle beside them."""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from sama_bundle.errors import UnreadableSourceError
from sama_bundle.reading import Positions
from sama_bundle.sources import Columns
from service.storage.tables import BATCH_ROWS


def is_instance(value: object, library: str, name: str) -> bool:
    """Tell whether a value is of a library's type, without importing a library that nobody has imported."""
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, name))


def view_frame(frame: Any) -> Columns:
    """Return the columns of a frame.

    Raises:
        UnreadableSourceError: it is no frame whose rows are at hand.
    """
    if is_instance(frame, "pandas", "DataFrame"):
        return Columns("the frame", [str(name) for name in frame.columns], lambda names: _read_pandas(frame, names))
    if is_instance(frame, "polars", "DataFrame"):
        return Columns("the frame", frame.columns, lambda names: _split(frame.select(names).to_arrow()))
    if isinstance(frame, pa.Table):
        return Columns("the table", frame.column_names, lambda names: _split(frame.select(names)))
    hint = "Call collect() first." if is_instance(frame, "polars", "LazyFrame") else None
    wanted = "a pandas or polars DataFrame or a pyarrow Table"
    raise UnreadableSourceError(f"frame is {type(frame).__name__}; wanted {wanted}.", param="frame", hint=hint)


def take_rows(frame: Any, positions: Positions, added: pa.Table) -> Any:
    """Return the rows at `positions` as the same kind of frame, with the columns of `added` beside them."""
    if isinstance(frame, pa.Table):
        taken = frame.take(positions)
        for name in added.column_names:
            taken = taken.append_column(name, added.column(name))
        return taken
    if is_instance(frame, "polars", "DataFrame"):
        taken = frame[positions]
        return taken.hstack(sys.modules["polars"].from_arrow(added)) if added.num_columns else taken
    return frame.iloc[positions].assign(**{name: _to_numpy(added, name) for name in added.column_names})


def _read_pandas(frame: Any, names: list[str]) -> Iterable[pa.RecordBatch]:
    try:
        return _split(pa.Table.from_pandas(frame[names], preserve_index=False).replace_schema_metadata())
    except pa.ArrowException as exc:
        raise UnreadableSourceError(f"The frame has a column of mixed types: {exc}", param="frame") from exc


def _split(table: pa.Table) -> Iterable[pa.RecordBatch]:
    return table.to_batches(max_chunksize=BATCH_ROWS)


def _to_numpy(table: pa.Table, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    return table.column(name).to_numpy()
