"""Arrays on disk: written a batch at a time, then memory-mapped, so that a data set need not fit into memory."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from service.storage.arrow_types import ChunkedArray

Array = NDArray[Any]
BoundaryCheck = Callable[[], None]

BATCH_ROWS = 1024


class ArrayFolder:
    """A folder of this attempt's own for encoded data, gone when the attempt ends.

    `check` is called between batches and may raise, which ends the encoding: the attempt was asked to stop.
    """

    def __init__(self, path: Path, check: BoundaryCheck) -> None:
        self._path = path
        self._check = check

    def __enter__(self) -> "ArrayFolder":
        """Make the folder, empty."""
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(mode=0o700, parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder, and the one around it once it is empty. Arrays still mapped stay readable."""
        shutil.rmtree(self._path, ignore_errors=True)
        with suppress(OSError):
            self._path.parent.rmdir()

    @property
    def path(self) -> Path:
        """Where the folder lies."""
        return self._path

    def write(self, name: str, dtype: DTypeLike, row_shape: tuple[int, ...], batches: Iterable[Array]) -> Array:
        """Write batches of rows of one shape one after the other and return them as one mapped array (N, ...)."""
        written = self.write_all({name: (dtype, row_shape)}, ({name: batch} for batch in batches))
        return written[name]

    def write_all(
        self, kinds: dict[str, tuple[DTypeLike, tuple[int, ...]]], batches: Iterable[dict[str, Array]]
    ) -> dict[str, Array]:
        """Write several arrays side by side, each batch giving the next part of every one of them."""
        paths = {name: self._path / f"{name}.bin" for name in kinds}
        files = {name: path.open("wb") for name, path in paths.items()}
        try:
            for batch in batches:
                self._check()
                for name, (dtype, _shape) in kinds.items():
                    files[name].write(np.ascontiguousarray(batch[name], dtype=dtype).tobytes())
        finally:
            for file in files.values():
                file.close()
        return {name: _map(paths[name], np.dtype(dtype), shape) for name, (dtype, shape) in kinds.items()}


def _map(path: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> Array:
    row_bytes = dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
    num_rows = path.stat().st_size // row_bytes if row_bytes else 0
    if num_rows == 0:
        return np.empty((0, *row_shape), dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(num_rows, *row_shape))


def take_batches(table: pa.Table, rows: NDArray[np.int64], batch_rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """Yield the rows (ascending) of a memory-mapped table, a batch at a time, touching no others for long."""
    for start in range(0, len(rows), batch_rows):
        part = rows[start : start + batch_rows]
        first = int(part[0])
        near = table.slice(first, int(part[-1]) - first + 1)
        yield near if near.num_rows == len(part) else near.take(part - first)


def take_column(table: pa.Table, name: str, rows: NDArray[np.int64]) -> ChunkedArray:
    """Return one column at some rows (ascending), whole: for statistics that need every value at once."""
    chunks = [chunk for batch in take_batches(table.select([name]), rows, 65_536) for chunk in batch.column(0).chunks]
    return pa.chunked_array(chunks, type=table.schema.field(name).type)
