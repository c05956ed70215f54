"""Bytes of a file, decompressed on the way, with a limit on the decoded bytes."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, cast

import pyarrow as pa
from typing_extensions import Buffer

from service.storage.faults import DataError
from service.storage.roots import open_readonly

CODECS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
_COPY_BYTES = 1 << 20

OnBytes = Callable[[bytes], None]


class ByteStream(Protocol):
    """What can be read in pieces and closed."""

    def read(self, num_bytes: int, /) -> bytes:
        """Read at most `num_bytes`; nothing at the end."""

    def close(self) -> None:
        """Let go of what lies behind."""


class LimitedStream(io.RawIOBase):
    """A readable stream that ends in an error once more than `max_bytes` have come out of it."""

    def __init__(
        self, inner: ByteStream, max_bytes: int | None, name: str, param: str | None, on_bytes: OnBytes | None = None
    ) -> None:
        self._inner = inner
        self._on_bytes = on_bytes
        self._max_bytes = max_bytes
        self._name = name
        self._param = param
        self._num_bytes = 0

    def readable(self) -> bool:
        """Tell that the stream can be read."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Read up to the buffer's size.

        Raises:
            DataError: `data_too_large` or, for a damaged compressed file, `unreadable_file`.
        """
        view = memoryview(buffer).cast("B")
        try:
            chunk = self._inner.read(len(view))
        except (OSError, EOFError) as exc:
            message = f"{self._name} cannot be decompressed: it is damaged or cut off."
            raise DataError("unreadable_file", message, param=self._param) from exc
        self._num_bytes += len(chunk)
        check_decoded_bytes(self._num_bytes, self._max_bytes, self._name, self._param)
        if self._on_bytes is not None:
            self._on_bytes(chunk)
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """Close the stream and the file behind it."""
        if not self.closed:
            self._inner.close()
        super().close()


def open_stream(
    path: Path, *, max_bytes: int | None, param: str | None, on_bytes: OnBytes | None = None
) -> io.BufferedReader:
    """Open a file for reading once from its beginning, decompressed by its suffix (.gz, .zst).

    `on_bytes` sees the decoded bytes as they come by.

    Raises:
        DataError: `file_not_found`; while reading, `data_too_large` and `unreadable_file`.
    """
    file: ByteStream = open_file(path, param)
    codec = CODECS.get(path.suffix.lower())
    if codec is not None:
        file = pa.CompressedInputStream(cast(io.IOBase, file), codec)
    return io.BufferedReader(LimitedStream(file, max_bytes, path.name, param, on_bytes), buffer_size=_COPY_BYTES)


def open_file(path: Path, param: str | None) -> io.BufferedReader:
    """Open a real path for reading.

    Raises:
        DataError: `file_not_found`; it is gone, is a link by now, or may not be read.
    """
    try:
        return open_readonly(path)
    except OSError as exc:
        raise DataError("file_not_found", f"{path.name} cannot be opened.", param=param) from exc


def digest_file(path: Path, param: str | None = None) -> str:
    """Return the SHA-256 of the file as it lies on disk, as 64 hexadecimal digits, read in pieces."""
    with open_file(path, param) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_stamp(path: Path) -> tuple[int, int, int]:
    """Return what tells that a file was changed or replaced: inode, size, time of the last write."""
    status = path.stat(follow_symlinks=False)
    return status.st_ino, status.st_size, status.st_mtime_ns


def check_decoded_bytes(num_bytes: int, max_bytes: int | None, name: str, param: str | None) -> None:
    """Refuse data that decodes to more than the limit.

    Raises:
        DataError: `data_too_large`.
    """
    if max_bytes is not None and num_bytes > max_bytes:
        message = f"{name} holds more than {max_bytes:,} bytes once decoded; that is the limit here."
        raise DataError("data_too_large", message, param=param, hint="The limit is SAMA_MAX_DATASET_BYTES.")
