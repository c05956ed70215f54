"""Sketches of examples: small, comparable stand-ins by which near duplicates are found."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from service.jobs.document import DatasetSpec, LeakageSpec

Rows = npt.NDArray[np.int64]
BandKeys = npt.NDArray[np.uint64]
Similarities = npt.NDArray[np.float32]
Content = TypeVar("Content")
Number = TypeVar("Number", bound=np.generic)

# Sketches take 0.3 to 0.5 kB a row: this many rows fit into 250 MB.
MAX_ROWS = 500_000
DEFAULT_SIMILARITY = {"text": 0.8, "image": 0.85}
_LIBRARIES = {"text": "datasketch", "image": "imagehash"}


class Blocks(Generic[Number]):
    """Rows of equal length, gathered block by block and read as one matrix."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[Number]] = []

    def add(self, block: npt.NDArray[Number]) -> None:
        """Append rows."""
        self._blocks.append(block)

    def __len__(self) -> int:
        return sum(len(block) for block in self._blocks)

    def join(self) -> npt.NDArray[Number]:
        """Return all rows as one matrix; there must be one at least."""
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0]


class AbstractSketches(ABC, Generic[Content]):
    """The sketches of all examples of a data set, role after role, in the order they were read."""

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity

    @abstractmethod
    def add(self, contents: Sequence[Content]) -> None:
        """Take in the contents of some examples; None where one cannot be read."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def band(self, rows: Rows) -> Iterator[BandKeys]:
        """Yield one key a row, band after band: rows that are alike share their key in some band."""

    @abstractmethod
    def compare(self, first: Rows, second: Rows) -> Similarities:
        """Return how alike the examples of each pair are; 0 not at all, 1 the same."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why near duplicates are not looked for, in words; `is_news` where nobody asked for that."""

    reason: str
    is_news: bool


def find_obstacle(dataset: DatasetSpec, leakage: LeakageSpec, num_rows: int) -> Obstacle | None:
    """Return why near duplicates are not looked for; None where they are."""
    library = _LIBRARIES.get(dataset.kind)
    if library is None:
        return Obstacle("rows of features are compared exactly", is_news=False)
    if not leakage.near:
        return Obstacle("leakage.near is false", is_news=False)
    if num_rows > MAX_ROWS:
        return Obstacle(f"there are {num_rows:,} rows, more than the limit of {MAX_ROWS:,}", is_news=True)
    if find_spec(library) is None:
        return Obstacle(f"the library {library} is not installed here (extra: near)", is_news=True)
    return None


def choose_similarity(dataset: DatasetSpec, leakage: LeakageSpec) -> float | None:
    """Return how alike two examples must be to be near duplicates; None for rows of features."""
    default = DEFAULT_SIMILARITY.get(dataset.kind)
    return default if leakage.similarity is None or default is None else leakage.similarity


def build_sketches(dataset: DatasetSpec, leakage: LeakageSpec) -> AbstractSketches[Any]:
    """Return empty sketches for the kind of input, text or image."""
    similarity = choose_similarity(dataset, leakage)
    assert similarity is not None, "asked for only where find_obstacle finds none"
    if dataset.kind == "text":
        from service.storage.text_sketches import TextSketches

        return TextSketches(similarity)
    from service.storage.image_sketches import ImageSketches

    return ImageSketches(similarity)
