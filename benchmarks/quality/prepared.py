"""A set as a run takes it: encoded, cut, with its trusted rows chosen."""

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.view import RowsView
from sama_core import AbstractExamples
from worker.data.examples import InputShape

Mode = Literal["audited", "separate"]
MODES: tuple[Mode, ...] = ("audited", "separate")
"""Audited: the labels that the data delivered for the trusted rows are known. Separate: only the trusted labels are."""


@dataclass(frozen=True)
class PreparedSet:
    """The rows of one set and seed.

    Attributes:
        pool: inputs of all examples that are not for the test; its labels are the true ones.
        test: test examples.
        given: (P,) as the data delivered them, -1 where they did not.
        gold: (P,) true labels.
        train_rows: (N,) rows of the pool that are curated; each has a given label.
        trusted_rows: (M,) rows of the pool whose true label the methods may see.
        votes: (P, V), -1 where a rule abstained, or None.
        shape: of the inputs.
    """

    pool: AbstractExamples
    test: AbstractExamples
    given: NDArray[np.int64]
    gold: NDArray[np.int64]
    train_rows: NDArray[np.int64]
    trusted_rows: NDArray[np.int64]
    votes: NDArray[np.int64] | None
    shape: InputShape

    @property
    def num_classes(self) -> int:
        """C."""
        return self.pool.num_classes

    def separate(self) -> "PreparedSet":
        """Return the set with its trusted rows outside of the curated ones, their given labels forgotten."""
        rest = self.train_rows[~np.isin(self.train_rows, self.trusted_rows)]
        given = self.given.copy()
        given[self.trusted_rows] = -1
        return PreparedSet(self.pool, self.test, given, self.gold, rest, self.trusted_rows, self.votes, self.shape)

    def find_untrusted(self) -> NDArray[np.bool_]:
        """Return which curated rows are not trusted, (N,)."""
        return ~np.isin(self.train_rows, self.trusted_rows)

    def make_train(self) -> RowsView:
        """Return the curated examples with their given labels."""
        return self._view(self.train_rows, self.given)

    def make_meta(self) -> RowsView:
        """Return the trusted examples, and what is known of them besides."""
        rows = self.trusted_rows
        meta = self._view(rows, self.gold)
        if (self.given[rows] >= 0).any():
            meta.given_labels = torch.from_numpy(self.given[rows])
        places = np.full(len(self.given), -1, dtype=np.int64)
        places[self.train_rows] = np.arange(len(self.train_rows))
        if (places[rows] >= 0).any():
            meta.train_rows = torch.from_numpy(places[rows])
        return meta

    def make_labelled(self, labels: NDArray[np.int64]) -> RowsView:
        """Return the whole pool under labels (P,); rows that are not trained on may have any."""
        return RowsView(self.pool, np.arange(len(labels)), np.maximum(labels, 0))

    def _view(self, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> RowsView:
        view = RowsView(self.pool, rows, labels[rows])
        if self.votes is not None:
            view.votes = torch.from_numpy(self.votes[rows])
        return view


class _MemoryPickler(pickle.Pickler):
    """Writes arrays that are mapped from a file as arrays in memory."""

    def reducer_override(self, value: Any) -> Any:
        return np.array(value).__reduce__() if isinstance(value, np.memmap) else NotImplemented


def store_prepared(path: Path, prepared: PreparedSet) -> None:
    """Write a set so that another process can take it up; the file appears whole or not at all."""
    buffer = io.BytesIO()
    _MemoryPickler(buffer, protocol=5).dump(prepared)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(buffer.getvalue())
    part.replace(path)


def load_prepared(path: Path) -> PreparedSet:
    """Read a set that ``store_prepared`` of the same run wrote; never anything else, since pickles can do anything."""
    prepared: PreparedSet = pickle.loads(path.read_bytes())
    return prepared
