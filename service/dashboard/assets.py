"""The few static files of the dashboard, held in memory, with their digests as ETags."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.responses import Response

from service.errors import NotFoundError

_MEDIA_TYPES = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _Asset:
    data: bytes
    media_type: str
    etag: str


def answer_asset(name: str, known_etag: str | None) -> Response:
    """Return a static file, or 304 where the browser has it already. Raises NotFoundError."""
    asset = _ASSETS.get(name)
    if asset is None:
        raise NotFoundError("file", name)
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
    if known_etag == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.data, media_type=asset.media_type, headers=headers)


def _load(name: str, media_type: str) -> _Asset:
    data = (files("service.dashboard") / "static" / name).read_bytes()
    return _Asset(data, media_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


_ASSETS = {name: _load(name, media_type) for name, media_type in _MEDIA_TYPES.items()}
