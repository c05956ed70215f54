"""Request bodies, read up to a limit."""

from typing import Annotated

from fastapi import Depends, Request

from service.errors import ServiceError

_DOCUMENT_TYPES = {
    "application/json",
    "application/yaml",
    "application/x-yaml",
    "text/yaml",
    "text/x-yaml",
}


async def read_limited(request: Request, max_bytes: int) -> bytes:
    """Return the body. Raises ServiceError `payload_too_large` as soon as it is longer than allowed."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _refuse_size(max_bytes)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise _refuse_size(max_bytes)
    return bytes(body)


async def read_document_text(request: Request) -> bytes:
    """Return the text of a job document.

    Raises:
        ServiceError: `unsupported_media_type` or `payload_too_large`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _DOCUMENT_TYPES:
        raise ServiceError(
            "unsupported_media_type",
            f"Content-Type is {media_type[:100]!r}; wanted application/json or application/yaml.",
            param="Content-Type",
        )
    max_bytes: int = request.app.state.settings.max_document_bytes
    return await read_limited(request, max_bytes)


def _refuse_size(max_bytes: int) -> ServiceError:
    return ServiceError(
        "payload_too_large", f"The body is too large; wanted at most {max_bytes:,} bytes.", param="body"
    )


DocumentText = Annotated[bytes, Depends(read_document_text)]
