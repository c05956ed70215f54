"""Handing out an exported file: strong ETag, ranges, digests."""

import base64
import re
from collections.abc import Iterator
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.errors import ServiceError
from service.results.files import ExportedFile

_PIECE_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*")


class RangeError(ServiceError):
    """The range asked for lies outside of the file."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            "range_not_satisfiable",
            f"The range begins behind the end; the file has {size_bytes:,} bytes.",
            param="Range",
        )
        self.headers = {"Content-Range": f"bytes */{size_bytes}", "Accept-Ranges": "bytes"}


def answer_file(request: Request, file: ExportedFile, download_name: str) -> Response:
    """Return the file, the part of it that was asked for, or 304 where the caller has it already.

    Raises:
        RangeError: `range_not_satisfiable`.
    """
    headers = _describe(file, download_name)
    if _has_already(request, headers["ETag"]):
        return Response(status_code=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    size_bytes = file.stored.size_bytes
    span = _read_range(request, headers["ETag"], size_bytes)
    start, stop = span or (0, size_bytes)
    headers["Content-Length"] = str(stop - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    status = 206 if span is not None else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.media_type)
    # Opened now: a file that is removed meanwhile stays whole for those who have it open.
    pieces = _read_pieces(file.stored.path.open("rb"), start, stop)
    return StreamingResponse(pieces, status, headers, media_type=file.media_type)


def _describe(file: ExportedFile, download_name: str) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(file.stored.sha256)).decode()
    return {
        "ETag": f'"{file.stored.sha256}"',
        "Digest": f"sha-256={digest}",
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{download_name}"',
        "Cache-Control": "private, no-cache",
    }


def _has_already(request: Request, etag: str) -> bool:
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
    return "*" in tags or etag in tags


def _read_range(request: Request, etag: str, size_bytes: int) -> tuple[int, int] | None:
    """Return (start, stop) of the one range asked for; None where the whole file is to be sent.

    What is malformed, has several parts or was asked of another version is answered with the whole file, as
    RFC 9110 allows.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", etag) != etag or request.method != "GET":
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        start, stop = max(size_bytes - int(last), 0), size_bytes
    else:
        start, stop = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeError(size_bytes)
    return start, stop


def _read_pieces(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < stop:
            piece = file.read(min(_PIECE_BYTES, stop - start))
            if not piece:
                raise OSError("an exported file is shorter than it was")
            start += len(piece)
            yield piece
