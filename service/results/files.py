"""Files made from results: written whole or not at all, named by the digest of their content."""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.errors import ServiceError

EXPORTS = "exports"  # the store's folder in the data directory
_PARTIAL = ".partial-"
_LEFTOVER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store: where it lies, its SHA-256 (64 hexadecimal digits) and its size."""

    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A stored file to hand out under its name. The digest is its strong ETag."""

    stored: StoredFile
    file_name: str
    media_type: str

    @property
    def outputs_entry(self) -> dict[str, str | int]:
        """What a manifest says of the file."""
        return {"sha256": self.stored.sha256, "bytes": self.stored.size_bytes}


class ExportStore:
    """A directory of files that never change. Safe under any number of writers and readers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, write: Callable[[BinaryIO], None]) -> StoredFile:
        """Let `write` fill a new file, then give it the name of its digest.

        Raises:
            ServiceError: `storage_unavailable`; nothing is left behind.
        """
        partial = self._directory / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with partial.open("xb+") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                size_bytes = file.tell()
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            path = self._directory / sha256
            partial.replace(path)
        except OSError as exc:
            raise ServiceError(
                "storage_unavailable",
                "The server cannot write the file.",
                hint="The server's data directory may be full or read-only.",
            ) from exc
        finally:
            partial.unlink(missing_ok=True)
        return StoredFile(path, sha256, size_bytes)

    def find(self, sha256: str, size_bytes: int) -> StoredFile | None:
        """Return the file with this digest, or None where it is missing or cut short."""
        path = self._directory / sha256
        try:
            whole = path.stat().st_size == size_bytes
        except OSError:
            return None
        return StoredFile(path, sha256, size_bytes) if whole else None

    def remove_leftovers(self) -> None:
        """Remove what a writer left behind that was killed more than an hour ago."""
        for path in self._directory.glob(f"{_PARTIAL}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                    path.unlink()

    def remove(self, digests: Iterable[str]) -> None:
        """Remove the files with these digests; those that are gone already are no fault."""
        for sha256 in digests:
            (self._directory / sha256).unlink(missing_ok=True)
