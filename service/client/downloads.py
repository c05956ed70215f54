"""Files from the server: resumed where they broke off, checked by digest, put in place in one step."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from service.client.errors import AnswerError, DigestMismatchError
from service.client.transport import Transport
from service.errors import ServiceError

PART_SUFFIX = ".part"
_TRIES_WITHOUT_PROGRESS = 4

Observer = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that have arrived, and the bytes there will be, if that is known."""


class Download:
    """One file on its way: what has arrived lies in `NAME.DIGEST.part` beside the target until it is whole."""

    def __init__(
        self,
        transport: Transport,
        path: str,
        target: Path,
        sha256: str,
        *,
        params: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._transport = transport
        self._path = path
        self._target = target
        self._params = params
        self._sha256 = sha256
        self._observer = observer
        # The digest in the name keeps bytes of another version of the file apart.
        self._part = target.with_name(f"{target.name}.{sha256[:16]}{PART_SUFFIX}")

    def run(self) -> None:
        """Bring the file to its target; a target that is right already is left alone.

        Raises:
            UnreachableError: the connection broke and did not come back; what has arrived is kept.
            AnswerError: the server refused.
            DigestMismatchError: what arrived is not what was announced; it is removed.
        """
        if self._target.is_file() and digest_file(self._target) == self._sha256:
            return
        self._receive_whole()
        seen = digest_file(self._part)
        if seen != self._sha256:
            self._part.unlink()
            raise DigestMismatchError(self._target.name, seen, self._sha256)
        self._part.replace(self._target)

    def _receive_whole(self) -> None:
        """Ask until every byte is there."""
        tries_left = _TRIES_WITHOUT_PROGRESS
        while True:
            before = self._num_arrived()
            try:
                return self._receive()
            except httpx.TransportError as exc:
                tries_left = _TRIES_WITHOUT_PROGRESS if self._num_arrived() > before else tries_left - 1
                if tries_left <= 0:
                    raise self._transport.unreachable(exc) from exc

    def _receive(self) -> None:
        arrived = self._num_arrived()
        headers = {"Accept-Encoding": "identity"}
        if arrived:
            headers |= {"Range": f"bytes={arrived}-", "If-Range": f'"{self._sha256}"'}
        with self._transport.stream(
            self._path, params=self._params, headers=headers, accepted_errors=(416,)
        ) as response:
            if response.status_code == 416:
                # Every byte is here already, or more than that: the digest will tell.
                if _read_total(response) == arrived:
                    return
                self._part.unlink(missing_ok=True)
                raise httpx.ReadError("the server has fewer bytes than had arrived")
            resumed = response.status_code == 206
            if resumed and not response.headers.get("content-range", "").startswith(f"bytes {arrived}-"):
                raise AnswerError(206, "unexpected_answer", f"The server sent another part of {self._target.name}.")
            self._write(response, start=arrived if resumed else 0)

    def _write(self, response: httpx.Response, *, start: int) -> None:
        length = response.headers.get("content-length")
        total = start + int(length) if length and length.isdigit() else None
        arrived = start
        with self._part.open("ab" if start else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                arrived += len(chunk)
                if self._observer is not None:
                    self._observer(self._target.name, arrived, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and arrived < total:
            raise httpx.ReadError("the connection ended early")

    def _num_arrived(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_other_files(directory: Path, digests: Mapping[str, str]) -> None:
    """Refuse a folder in which a file of one of these names is another than announced.

    Raises:
        ServiceError: `target_exists`.
    """
    for name, sha256 in digests.items():
        path = directory / name
        if path.exists() and not (path.is_file() and digest_file(path) == sha256):
            raise ServiceError(
                "target_exists",
                f"{str(directory)!r} holds another {name} already.",
                hint="Name another folder, or replace what is there with --overwrite.",
            )


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all."""
    part = path.with_name(path.name + PART_SUFFIX)
    part.write_bytes(data)
    part.replace(path)


def _read_total(response: httpx.Response) -> int | None:
    total = response.headers.get("content-range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None
