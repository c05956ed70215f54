"""Opaque cursors of lists: where the next page begins."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from service.errors import ServiceError

MAX_CURSOR_CHARACTERS = 1000


def encode_cursor(fields: Mapping[str, Any]) -> str:
    """Return the fields as text that is safe in a URL."""
    raw = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, types: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Return the fields of a cursor that `encode_cursor` made.

    Raises:
        ServiceError: `invalid_cursor`; the text is no cursor, or one of another list.
    """
    if len(cursor) > MAX_CURSOR_CHARACTERS:
        raise refuse_cursor()
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        fields = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise refuse_cursor() from exc
    if not isinstance(fields, dict) or set(fields) != set(types):
        raise refuse_cursor()
    for name, kind in types.items():
        if not isinstance(fields[name], kind):
            raise refuse_cursor()
    return fields


def refuse_cursor() -> ServiceError:
    """Return the error of a cursor that is not one of the list it was sent to."""
    return ServiceError(
        "invalid_cursor",
        "cursor is not one that this list gave; wanted the next_cursor of the page before.",
        param="cursor",
        hint="Leave the cursor out to begin with the first page; keep the other parameters the same on every page.",
    )
