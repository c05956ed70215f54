"""What people see of an example: the beginning of its text, its numbers, or a small image."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from service.storage.images import decode_image
from worker.results.text import clean_text

MAX_CHARACTERS = 500
MAX_SIDE = 96
_LOSSLESS_SIDE = 32


@dataclass(frozen=True)
class Thumbnail:
    """Text, or an image with its media type."""

    text: str | None = None
    image: bytes | None = None
    image_type: str | None = None


def render_input(kind: str, shown: Mapping[str, Any], max_pixels: int) -> Thumbnail:
    """Return what to show of an example's input columns; `kind` is that of the data set."""
    if kind == "image":
        return Thumbnail(None, *make_thumbnail(next(iter(shown.values())), max_pixels))
    if kind == "text":
        text = next(iter(shown.values())) or ""
    else:
        text = ", ".join(f"{name}={_write_value(value)}" for name, value in shown.items())
    return Thumbnail(clean_text(text[:MAX_CHARACTERS]))


def make_thumbnail(data: bytes, max_pixels: int) -> tuple[bytes, str]:
    """Return a small PNG or, where it is not tiny, JPEG of an image, and its media type."""
    image: Image.Image = decode_image(data, max_pixels)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257.0).clip(0, 255).astype(np.uint8))
    image = image.convert("RGBA" if "transparency" in image.info else image.mode)
    image = image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    tiny = max(image.size) <= _LOSSLESS_SIDE
    target = io.BytesIO()
    image.save(target, format="PNG" if tiny else "JPEG")
    return target.getvalue(), "image/png" if tiny else "image/jpeg"


def _write_value(value: object) -> str:
    if value is None:
        return "(missing)"
    return f"{value:g}" if isinstance(value, float) else str(value)
