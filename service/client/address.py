"""Where the server is and which key opens it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.errors import ServiceError

DEFAULT_URL = "http://127.0.0.1:8000"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True, slots=True)
class Address:
    """A server: an http(s) URL, or a unix socket as `unix:///path/to/socket`."""

    url: str
    socket: Path | None
    api_key: str | None = field(repr=False)

    @property
    def base_url(self) -> str:
        """The URL that requests are made against."""
        return "http://localhost" if self.socket is not None else self.url

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, so that it sees the same files."""
        return self.socket is not None or urlsplit(self.url).hostname in _LOOPBACK


def find_address(
    url: str | None = None, api_key: str | None = None, environment: Mapping[str, str] | None = None
) -> Address:
    """Return the server to talk to: as given, else SAMA_URL and SAMA_API_KEY, else the one of `sama serve`.

    Without a key, the key file of a data directory on this machine is tried (SAMA_DATA_DIR, else
    ./sama-data), and its key is sent to a server on this machine only.

    Raises:
        ServiceError: `invalid_url`.
    """
    values = os.environ if environment is None else environment
    text = url or values.get("SAMA_URL") or DEFAULT_URL
    parts = urlsplit(text)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        socket: Path | None = Path(unquote(parts.path))
    elif parts.scheme in {"http", "https"} and parts.hostname:
        socket, text = None, text.rstrip("/")
    else:
        raise ServiceError(
            "invalid_url", f"The server's address is {text!r}; wanted http://HOST:PORT, https://HOST or unix:///PATH."
        )
    address = Address(text, socket, api_key or values.get("SAMA_API_KEY") or None)
    if address.api_key is None and address.is_local:
        return Address(text, socket, _read_key(Path(values.get("SAMA_DATA_DIR") or "sama-data")))
    return address


def _read_key(data_dir: Path) -> str | None:
    try:
        return (data_dir / "api-key").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
