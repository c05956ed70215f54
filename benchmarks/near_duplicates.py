"""What the search for near duplicates costs and finds: `python -m benchmarks.near_duplicates DATA_DIR [NAME ...]`.

DATA_DIR holds the data sets sst2 (text), cifar10 and mnist (images) as Parquet files. Prints CPU seconds, decoding
included, and of images how many are found again after each of some changes.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance, ImageOps

from service.storage.image_sketches import ImageSketches
from service.storage.images import decode_image
from service.storage.near_pairs import find_near_pairs
from service.storage.sketches import DEFAULT_SIMILARITY, AbstractSketches
from service.storage.text_sketches import TextSketches

MAX_PIXELS = 1 << 24
NUM_CHANGED = 300
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"JPEG, quality {quality}": lambda image, quality=quality: _save_anew(image, quality) for quality in (90, 75)},
    **{f"{side} x {side}": lambda image, side=side: image.resize((side, side)) for side in (48, 24)},
    **{
        f"light x {share:g}": lambda image, share=share: ImageEnhance.Brightness(image).enhance(share)
        for share in (0.8, 0.9, 0.95, 1.05, 1.1, 1.2)
    },
    "contrast x 0.8": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "one row and column cut off": lambda image: image.crop((1, 1, *image.size)),
    "mirrored": ImageOps.mirror,
}


def read_column(path: Path, name: str, num_rows: int) -> list[Any]:
    """Return the first values of a column."""
    values = pq.read_table(path, columns=[name]).column(name).slice(0, num_rows).to_pylist()
    return [value["bytes"] if isinstance(value, dict) else value for value in values]


def measure(
    name: str, sketches: AbstractSketches[Any], contents: Sequence[Any], read: Callable[[Any], Any], num_train: int
) -> None:
    """Sketch the contents, search them, and print what it took and found."""
    start = time.process_time()
    for content in contents:
        sketches.add([read(content)])
    sketched = time.process_time()
    first, second = find_near_pairs(sketches, np.arange(len(contents)), lambda: None)
    searched = time.process_time()
    leaking = np.unique(second[(first < num_train) & (second >= num_train)])
    print(
        f"{name}: {len(contents):,} examples, sketched in {sketched - start:.1f} s, searched in "
        f"{searched - sketched:.1f} s; {len(first):,} pairs, {len(leaking):,} test rows"
    )


def main() -> None:
    """Measure every data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("names", nargs="*", default=["sst2", "cifar10", "mnist"], metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.names:
        measure_set(arguments.data_dir, name)


def measure_set(folder: Path, name: str) -> None:
    """Measure one data set."""
    if name == "sst2":
        texts = read_texts(folder / name / "data.parquet")
        measure(name, TextSketches(DEFAULT_SIMILARITY["text"]), texts, str, len(texts))
        return
    train = read_column(folder / name / "train.parquet", "image", 50_000)
    test = read_column(folder / name / "test.parquet", "image", 10_000)
    images = ImageSketches(DEFAULT_SIMILARITY["image"])
    measure(name, images, train + test, lambda data: decode_image(data, MAX_PIXELS), len(train))
    measure_changes(name, [decode_image(data, MAX_PIXELS).convert("RGB") for data in test[:NUM_CHANGED]])


def measure_changes(name: str, originals: Sequence[Image.Image]) -> None:
    """Print which share of the images is found again after each change."""
    size = len(originals)
    for title, change in CHANGES.items():
        sketches = ImageSketches(DEFAULT_SIMILARITY["image"])
        sketches.add([*originals, *map(change, originals)])
        first, second = find_near_pairs(sketches, np.arange(2 * size), lambda: None)
        found = int((second - first == size).sum())
        print(f"{name}, {title}: {found / size:.0%} of {size} found")


def _save_anew(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(file)


def read_texts(path: Path) -> list[str]:
    """Return 50,000 different texts."""
    return list(dict.fromkeys(read_column(path, "text", 100_000)))[:50_000]


if __name__ == "__main__":
    main()
