"""Images: PNG and JPEG, from bytes or from files beside the table, within a pixel limit."""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from service.storage.arrow_types import Array
from service.storage.faults import DataError
from service.storage.roots import open_readonly, resolve_path

MAX_ENCODED_BYTES = 256 << 20

# Opened by their own classes, not by Image.open: its pixel limit is a warning first, and ours is an error.
_OPENERS: Mapping[bytes, type[ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
}
_PNG_END = b"IEND\xaeB`\x82"  # Pillow does not miss it where every pixel came before the cut


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decode one PNG or JPEG image completely; its size is checked before its pixels are made.

    Raises:
        DataError: `unreadable_image`; another format, more than `max_pixels`, damaged or cut off.
    """
    opener = next((opener for magic, opener in _OPENERS.items() if data.startswith(magic)), None)
    if opener is None:
        raise DataError("unreadable_image", "it is neither PNG nor JPEG" if data else "it has no bytes")
    try:
        image = opener(io.BytesIO(data))
        width, height = image.size
        if width * height > max_pixels:
            message = f"it has {width} x {height} pixels; the limit is {max_pixels:,} (SAMA_MAX_IMAGE_PIXELS)"
            raise DataError("unreadable_image", message)
        image.load()
        if opener is PngImageFile and _PNG_END not in data:
            raise DataError("unreadable_image", "it is damaged or cut off")
    except (SyntaxError, OSError, EOFError, ValueError, IndexError, struct.error) as exc:
        raise DataError("unreadable_image", "it is damaged or cut off") from exc
    return image


def flatten_image(image: Image.Image) -> Image.Image:
    """Return the image in three channels of 8 bits: what shines through is white, 16 bits are cut to the upper 8."""
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def is_image_type(kind: pa.DataType) -> bool:
    """Tell whether a column can hold images: bytes, paths as text, or the struct {bytes, path}."""
    if pa.types.is_struct(kind):
        return all(kind.get_field_index(name) >= 0 for name in ("bytes", "path"))
    return is_binary_type(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_binary_type(kind: pa.DataType) -> bool:
    """Tell whether a column holds plain bytes."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def read_encoded(values: Array, folder: Path, roots: Sequence[Path]) -> Iterator[bytes | DataError]:
    """Yield the encoded bytes of each image of a column, or the reason why there are none."""
    for value in values.to_pylist():
        given = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
        if given is None:
            yield DataError("unreadable_image", "it is missing")
        elif isinstance(given, bytes):
            yield given
        else:
            yield _read_file(given, folder, roots)


def _read_file(name: str, folder: Path, roots: Sequence[Path]) -> bytes | DataError:
    try:
        path = resolve_path(str(folder / name), roots, param="image")
        with open_readonly(path) as file:
            data = file.read(MAX_ENCODED_BYTES + 1)
    except DataError as exc:
        reasons = {"path_not_allowed": "lies outside of the allowed folders", "file_not_found": "does not exist"}
        return DataError("unreadable_image", f"its file {name!r} {reasons.get(exc.code, 'is no regular file')}")
    except OSError:
        return DataError("unreadable_image", f"its file {name!r} cannot be opened")
    if len(data) > MAX_ENCODED_BYTES:
        return DataError("unreadable_image", f"its file {name!r} has more than {MAX_ENCODED_BYTES:,} bytes")
    return data
