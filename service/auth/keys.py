"""The API key: from the settings, or made at first start and kept in the data directory."""

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from pydantic import SecretStr

from service.errors import ServiceError
from service.settings import Settings

KEY_FILE = "api-key"
MIN_KEY_CHARACTERS = 24
_KEY = re.compile(rf"[!-~]{{{MIN_KEY_CHARACTERS},256}}")


def load_api_key(settings: Settings) -> SecretStr:
    """Return the key of this installation; makes one (256 random bits, mode 0600) where there is none.

    Raises:
        ServiceError: `weak_api_key` or `invalid_api_key_file`.
    """
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
        if not _KEY.fullmatch(key):
            raise ServiceError(
                "weak_api_key",
                f"SAMA_API_KEY has {len(key)} characters; wanted {MIN_KEY_CHARACTERS} to 256 without spaces.",
                param="SAMA_API_KEY",
                hint="Make one with: openssl rand -hex 32",
            )
        return settings.api_key
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.data_dir / KEY_FILE
    if not path.exists():
        _write_key(path)
    return _read_key(path)


def make_api_key() -> str:
    """Return a new key: `sama_`, 8 hexadecimal digits that name it, and 256 random bits."""
    return f"sama_{secrets.token_hex(4)}.{secrets.token_urlsafe(32)}"


def digest_secret(secret: str) -> str:
    """Return the SHA-256 by which a secret is stored and compared."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def is_same_secret(given: str, wanted: str) -> bool:
    """Compare two secrets in a time that says nothing about where they differ."""
    return hmac.compare_digest(digest_secret(given), digest_secret(wanted))


def _write_key(path: Path) -> None:
    """Write a new key beside `path` and link it in place: never half a file, and the first writer wins."""
    partial = path.with_name(f".{KEY_FILE}-{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(make_api_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(partial)
    except FileExistsError:
        pass  # another process made the key at the same moment; its key counts
    finally:
        partial.unlink()


def _read_key(path: Path) -> SecretStr:
    key = path.read_text(encoding="ascii", errors="replace").strip()
    if not _KEY.fullmatch(key):
        raise ServiceError(
            "invalid_api_key_file",
            f"The file {KEY_FILE} in the data directory holds no key.",
            hint="Remove the file to have a new key made at the next start.",
        )
    return SecretStr(key)
