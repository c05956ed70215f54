"""Some rows of a pool of examples, under labels of their own."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core import AbstractExamples, Inputs


class RowsView(AbstractExamples):
    """Rows of other examples.

    Args:
        pool: the examples.
        rows: int64 (N,), row numbers of the pool.
        labels: int64 (N,), of these rows.
    """

    def __init__(self, pool: AbstractExamples, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        self._pool = pool
        self._rows = torch.from_numpy(rows.astype(np.int64))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.num_classes = pool.num_classes

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return the pool's inputs of these rows."""
        return self._pool.fetch(self._rows[rows])
