"""Image encoding: decoded once to a common size, kept as bytes, normalised by the training rows' mean and spread."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.storage.images import decode_image
from worker.data.arrays import Array, ArrayFolder, take_batches
from worker.data.examples import AbstractEncoder, ImageExamples, InputShape, Part

_BATCH_IMAGES = 64
_MEASURED_BYTES = 1 << 22
_GREY_MODES = frozenset({"1", "L", "I", "I;16"})


@dataclass(frozen=True)
class PixelFormat:
    """The common form of images: channels (1 grey or 3 RGB), height and width."""

    num_channels: int
    height: int
    width: int

    def convert(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return (C, H, W) bytes; transparency is laid on white."""
        if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
            layered = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image).astype(np.float64) / 257.0).clip(0, 255).astype(np.uint8))
        image = image.convert("L" if self.num_channels == 1 else "RGB")
        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.uint8).reshape(self.height, self.width, self.num_channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ImageEncoder(AbstractEncoder):
    """Decodes images to one form and normalises each channel by the training rows."""

    def __init__(self, pixel_format: PixelFormat, max_pixels: int, *, kind: str = "image") -> None:
        self._format = pixel_format
        self._max_pixels = max_pixels
        self._mean: Array | None = None
        self._std: Array | None = None
        self.notes: list[str] = []
        self.shape = InputShape(kind, (pixel_format.num_channels, pixel_format.height, pixel_format.width))

    @classmethod
    def fit(cls, part: Part, max_pixels: int, max_side: int) -> "ImageEncoder":
        """Choose the form: the most frequent size, at most `max_side` a side; grey where no image has colour."""
        sizes: dict[tuple[int, int], int] = {}
        num_channels = 1
        for data in chain.from_iterable(_read_encoded(part)):
            with Image.open(io.BytesIO(data)) as image:
                sizes[image.size] = sizes.get(image.size, 0) + 1
                if image.mode not in _GREY_MODES:
                    num_channels = 3
        width, height = max(sizes, key=lambda size: (sizes[size], size))
        scale = min(1.0, max_side / max(width, height))
        chosen = PixelFormat(num_channels, max(1, round(height * scale)), max(1, round(width * scale)))
        encoder = cls(chosen, max_pixels)
        if len(sizes) > 1 or scale < 1.0:
            encoder.notes.append(
                f"images are brought to {chosen.width} x {chosen.height} pixels; {len(sizes)} sizes were found"
            )
        return encoder

    def normalise_by(self, mean: Array, std: Array) -> None:
        """Take a mean and spread from elsewhere (a pretrained network's) in place of the training rows'."""
        self._mean, self._std = mean, std

    def encode(self, part: Part, num_classes: int, folder: ArrayFolder) -> ImageExamples:
        """Decode images; the first data set encoded, the training one, sets mean and spread."""
        form = self._format
        shape = (form.num_channels, form.height, form.width)
        pixels = folder.write(f"{part.name}-pixels", np.uint8, shape, self._decode_batches(part))
        if self._mean is None or self._std is None:
            self._mean, self._std = _measure(pixels)
        return ImageExamples(pixels, self._mean, self._std, part.labels, num_classes)

    def _decode_batches(self, part: Part) -> Iterator[Array]:
        for encoded in _read_encoded(part):
            images = (decode_image(data, self._max_pixels) for data in encoded)
            yield np.stack([self._format.convert(image) for image in images])


def _read_encoded(part: Part) -> Iterator[list[bytes]]:
    for batch in take_batches(part.table, part.rows, _BATCH_IMAGES):
        yield [data or b"" for data in batch.column(0).to_pylist()]


def _measure(pixels: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and spread of each channel over 255, exactly: sums of whole numbers."""
    total = np.zeros(pixels.shape[1], dtype=np.int64)
    squares = np.zeros(pixels.shape[1], dtype=np.int64)
    step = max(1, _MEASURED_BYTES // int(np.prod(pixels.shape[1:])))
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step].astype(np.int64)
        total += part.sum(axis=(0, 2, 3))
        squares += (part**2).sum(axis=(0, 2, 3))
    count = len(pixels) * pixels.shape[2] * pixels.shape[3]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return mean / 255.0, std / 255.0
