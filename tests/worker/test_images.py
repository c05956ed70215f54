"""Image encoding: one form for all, bytes on disk, normalised by the training rows."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from worker.data.arrays import ArrayFolder
from worker.data.examples import Part
from worker.data.images import ImageEncoder, PixelFormat
from worker.results.thumbnails import make_thumbnail

MAX_PIXELS = 1 << 20


def make_image(size: tuple[int, int] = (8, 8), mode: str = "RGB", colour: object = 0, form: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.new(mode, size, colour).save(target, format=form)  # type: ignore[arg-type]
    return target.getvalue()


def make_part(images: list[bytes]) -> Part:
    table = pa.table({"image": pa.array(images, pa.large_binary())})
    return Part("train", table, np.arange(len(images)), np.zeros(len(images), dtype=np.int64))


def encode(encoder: ImageEncoder, part: Part) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as path, ArrayFolder(Path(path) / "1", lambda: None) as folder:
        inputs = encoder.encode(part, 2, folder).fetch(torch.arange(len(part.rows)))
    assert isinstance(inputs, torch.Tensor)
    return inputs


def test_grey_images_have_one_channel_and_colour_anywhere_gives_three() -> None:
    grey = [make_image(mode="L"), make_image(mode="L", colour=9)]
    assert ImageEncoder.fit(make_part(grey), MAX_PIXELS, 64).shape.sizes == (1, 8, 8)
    assert ImageEncoder.fit(make_part([*grey, make_image()]), MAX_PIXELS, 64).shape.sizes == (3, 8, 8)


def test_the_commonest_size_is_the_common_size_and_that_is_said() -> None:
    encoder = ImageEncoder.fit(
        make_part([make_image((8, 6)), make_image((8, 6)), make_image((32, 32))]), MAX_PIXELS, 64
    )
    assert encoder.shape.sizes == (3, 6, 8)
    assert encoder.notes == ["images are brought to 8 x 6 pixels; 2 sizes were found"]


def test_large_images_are_brought_down_with_their_proportions() -> None:
    assert ImageEncoder.fit(make_part([make_image((200, 100))]), MAX_PIXELS, 64).shape.sizes == (3, 32, 64)


def test_training_rows_have_mean_zero_and_spread_one_in_every_channel() -> None:
    generator = np.random.default_rng(0)
    images = []
    for _ in range(20):
        target = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(target, format="PNG")
        images.append(target.getvalue())
    part = make_part(images)
    inputs = encode(ImageEncoder.fit(part, MAX_PIXELS, 64), part)
    assert torch.allclose(inputs.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(inputs.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (0, 0, 0, 0), 255),
        ("LA", (0, 0), 255),
        ("L", 7, 7),
        ("1", 1, 255),
        ("I;16", 257 * 40, 40),
        ("P", 0, 0),
    ],
)
def test_every_kind_of_pixel_is_understood(mode: str, colour: object, expected: int) -> None:
    with Image.open(io.BytesIO(make_image(mode=mode, colour=colour))) as image:
        pixels = PixelFormat(3, 8, 8).convert(image)
    assert pixels.shape == (3, 8, 8)
    assert (pixels == expected).all()


@pytest.mark.parametrize(("size", "media_type"), [((8, 8), "image/png"), ((400, 100), "image/jpeg")])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_thumbnails_are_small(size: tuple[int, int], media_type: str, mode: str) -> None:
    data, found = make_thumbnail(make_image(size, mode), MAX_PIXELS)
    assert found == media_type
    with Image.open(io.BytesIO(data)) as image:
        assert max(image.size) <= 96
