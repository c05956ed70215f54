"""Data sets for the library: encoded arrays on disk, read by row number a batch at a time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core import AbstractExamples, Inputs
from worker.data.arrays import Array, ArrayFolder

# Legend: B examples of a batch, D inputs of a tabular row, L longest n-gram or token list of the batch,
# C channels, H height, W width.


@dataclass(frozen=True)
class InputShape:
    """What a network must know of its inputs: their kind, and the sizes that belong to that kind."""

    kind: str  # features, text, image, tokens or pixels
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Some rows of a memory-mapped table (ascending), under a name for the files that their encoding becomes."""

    name: str
    table: pa.Table
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]


class AbstractEncoder(ABC):
    """An encoding fitted on training rows; applied alike to training, trusted and test rows."""

    shape: InputShape
    notes: list[str]

    @abstractmethod
    def encode(self, part: Part, num_classes: int, folder: ArrayFolder) -> AbstractExamples:
        """Encode rows once and return them as a data set that reads the encoded arrays."""


class TabularExamples(AbstractExamples):
    """Standardised numbers and category codes; the codes become one-hot when a batch is fetched.

    Args:
        numbers: (N, F) float32.
        codes: (N, K) int32, one column per categorical feature, each in 0..size-1.
        sizes: number of categories of each categorical feature.
        labels: (N,).
        num_classes: C.
    """

    def __init__(self, numbers: Array, codes: Array, sizes: tuple[int, ...], labels: Array, num_classes: int) -> None:
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.num_classes = num_classes
        self._numbers = numbers
        self._codes = codes
        self._starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64) + numbers.shape[1]
        self._num_inputs = numbers.shape[1] + int(sum(sizes))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return float32 (B, D): numbers first, then one-hot categories."""
        wanted = rows.numpy()
        inputs_BD = np.zeros((len(wanted), self._num_inputs), dtype=np.float32)
        inputs_BD[:, : self._numbers.shape[1]] = self._numbers[wanted]
        positions = self._codes[wanted] + self._starts
        np.put_along_axis(inputs_BD, positions, 1.0, axis=1)
        return torch.from_numpy(inputs_BD)


class RaggedExamples(AbstractExamples):
    """Lists of numbers of differing length, padded with 0 to the longest of the batch when fetched.

    Args:
        columns: name -> (values (T,), dtype to fetch as); all share the offsets.
        offsets: (N + 1,) int64, where each example's list begins.
        labels: (N,).
        num_classes: C.
        as_mapping: fetch a dict by name; else a tuple in order.
    """

    def __init__(
        self,
        columns: dict[str, tuple[Array, torch.dtype]],
        offsets: Array,
        labels: Array,
        num_classes: int,
        *,
        as_mapping: bool,
    ) -> None:
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.num_classes = num_classes
        self._columns = columns
        self._offsets = offsets
        self._as_mapping = as_mapping

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return one (B, L) tensor for each column."""
        wanted = rows.numpy()
        starts, lengths = self._offsets[wanted], self._offsets[wanted + 1] - self._offsets[wanted]
        longest = max(1, int(lengths.max(initial=0)))
        inside_BL = np.arange(longest)[None, :] < lengths[:, None]
        sources = (starts[:, None] + np.arange(longest)[None, :])[inside_BL]
        tensors: dict[str, Tensor] = {}
        for name, (values, dtype) in self._columns.items():
            padded_BL: NDArray[Any] = np.zeros(inside_BL.shape, dtype=values.dtype)
            padded_BL[inside_BL] = values[sources]
            tensors[name] = torch.from_numpy(padded_BL).to(dtype)
        return tensors if self._as_mapping else tuple(tensors.values())


class ImageExamples(AbstractExamples):
    """Images of one size kept as bytes, normalised by channel when fetched.

    Args:
        pixels: (N, C, H, W) uint8.
        mean: (C,) of the pixel values over 255.
        std: (C,) likewise.
        labels: (N,).
        num_classes: C.
    """

    def __init__(self, pixels: Array, mean: Array, std: Array, labels: Array, num_classes: int) -> None:
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.num_classes = num_classes
        self._pixels = pixels
        self._mean = torch.from_numpy(mean.astype(np.float32)).reshape(1, -1, 1, 1)
        self._std = torch.from_numpy(std.astype(np.float32)).reshape(1, -1, 1, 1)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    def fetch(self, rows: Tensor) -> Inputs:
        """Return float32 (B, C, H, W)."""
        pixels_BCHW = torch.from_numpy(np.asarray(self._pixels[rows.numpy()]))
        return (pixels_BCHW.to(torch.float32) / 255.0 - self._mean) / self._std
