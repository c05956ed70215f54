"""Images: PNG and JPEG alone, within the pixel limit, whole to the last byte."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from service.storage.faults import DataError
from service.storage.images import decode_image, is_image_type, read_encoded


def encode(kind: str = "PNG", size: tuple[int, int] = (8, 6), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise(size, 90).convert(mode)
    noise.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_image_is_decoded(kind: str, mode: str) -> None:
    image = decode_image(encode(kind, mode=mode), 48)
    assert (image.size, image.mode) == ((8, 6), mode)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has no bytes"),
        (b"hello", "it is neither PNG nor JPEG"),
        (encode("GIF", mode="L"), "it is neither PNG nor JPEG"),
        (encode("BMP"), "it is neither PNG nor JPEG"),
        (encode("PNG")[:-30], "it is damaged or cut off"),
        (encode("PNG")[:-13], "it is damaged or cut off"),
        (encode("JPEG", (64, 64))[:-200], "it is damaged or cut off"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "it is damaged or cut off"),
        (b"\xff\xd8\xff" + b"\0" * 40, "it is damaged or cut off"),
        (encode("PNG", (100, 51)), "it has 100 x 51 pixels; the limit is 5,000 (SAMA_MAX_IMAGE_PIXELS)"),
    ],
)
def test_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        decode_image(data, 5000)
    assert caught.value.code == "unreadable_image"
    assert caught.value.message == message


def test_huge_claimed_size_is_refused_before_pixels_are_made() -> None:
    data = bytearray(encode("PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(DataError):
        decode_image(bytes(data), 1 << 26)


def test_every_form_of_column(tmp_path: Path) -> None:
    data = encode()
    (tmp_path / "a.png").write_bytes(data)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": None}, {"bytes": None, "path": "a.png"}, {"bytes": None, "path": None}, None]
    given = list(read_encoded(pa.array(rows, struct), tmp_path, [tmp_path]))
    assert given[:2] == [data, data]
    assert [str(reason) for reason in given[2:]] == ["it is missing", "it is missing"]
    assert list(read_encoded(pa.array([data]), tmp_path, [tmp_path])) == [data]
    assert list(read_encoded(pa.array(["a.png"]), tmp_path, [tmp_path])) == [data]


def test_image_files_that_cannot_be_read(tmp_path: Path) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(encode())
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    names = ["none.png", "../secret.png", "link.png", str(tmp_path / "secret.png"), "."]
    reasons = [str(reason) for reason in read_encoded(pa.array(names), inside, [inside])]
    assert "'none.png' does not exist" in reasons[0]
    assert all("lies outside of the allowed folders" in reason for reason in reasons[1:4])
    assert "is no regular file" in reasons[4]


def test_types() -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert all(map(is_image_type, (pa.binary(), pa.large_binary(), pa.string(), struct)))
    assert not any(map(is_image_type, (pa.int64(), pa.list_(pa.uint8()), pa.struct([("x", pa.binary())]))))
