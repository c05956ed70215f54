"""Data sets of the Hugging Face library `datasets`: selected to the rows to train on."""

import sys
from typing import Any

import numpy as np
import pyarrow as pa

from sama_bundle.errors import UnreadableSourceError
from sama_bundle.frames import is_instance
from sama_bundle.reading import Positions
from sama_bundle.sources import Columns
from service.storage.tables import BATCH_ROWS


def is_hf_dataset(dataset: object) -> bool:
    """Tell whether this is a map-style data set of `datasets`."""
    return is_instance(dataset, "datasets", "Dataset")


def view_dataset(dataset: Any) -> Columns:
    """Return the columns of a data set as they are stored: images encoded, classes as numbers.

    Raises:
        UnreadableSourceError: it is not a map-style data set of `datasets`.
    """
    if not is_hf_dataset(dataset):
        hint = None
        if is_instance(dataset, "datasets", "IterableDataset"):
            hint = "A stream of rows goes through filter_keys."
        elif is_instance(dataset, "datasets", "DatasetDict"):
            hint = f"Name one of its splits: {', '.join(map(repr, dataset))}."
        message = f"dataset is {type(dataset).__name__}; wanted a datasets.Dataset."
        raise UnreadableSourceError(message, param="dataset", hint=hint)

    def read(names: list[str]) -> Any:
        stored = dataset.select_columns(names).with_format("arrow")
        for table in stored.iter(BATCH_ROWS):
            yield from table.combine_chunks().to_batches()

    return Columns("the data set", dataset.column_names, read)


def take_rows(dataset: Any, positions: Positions, added: pa.Table) -> Any:
    """Return the rows at `positions`, with the columns of `added` beside them."""
    # Columns are added first, empty elsewhere: added to a selection they would make the library copy all of it.
    places = np.zeros(len(dataset), dtype=np.int64)
    places[positions] = np.arange(len(positions))
    elsewhere = np.ones(len(dataset), dtype=np.bool_)
    elsewhere[positions] = False
    indices: Any = pa.array(places, mask=elsewhere)
    spread = added.take(indices)
    features = sys.modules["datasets"].Features.from_arrow_schema(spread.schema)
    for name in spread.column_names:
        dataset = dataset.add_column(name, spread.column(name).to_pylist(), feature=features[name])
    return dataset.select(positions)
