"""Images: perceptual hashes, indexed by the bytes they share, and thumbnails by which a likeness is confirmed."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from service.storage.images import flatten_image
from service.storage.sketches import AbstractSketches, BandKeys, Blocks, Rows, Similarities

# Hashes of 8 bytes that differ in at most 6 bits share two whole bytes: each pair of bytes is a band.
HASH_BYTES = 8
HAMMING_RADIUS = 6
LIGHT_SIDE, COLOUR_SIDE = 16, 2
NUM_LIGHT = LIGHT_SIDE**2
LEAST_CONTRAST = 4.0  # grey levels of 255; a flatter image counts as this rich in contrast
NEUTRAL_COLOUR = 128.0
# Brought to one brightness and contrast, different drawings of a simple thing come nearer too: less difference is let
# pass then. At 1 the test rows of mnist that are found rise from 59 to 92, at 1.5 and 2 there are 59 still.
LEVELLING_COST = 2.0

Thumbnail = npt.NDArray[np.uint8]


class ImageSketches(AbstractSketches[Image.Image | None]):
    """Perceptual hashes and thumbnails; images are as alike as thumbnails differ little beside their contrast."""

    def __init__(self, similarity: float) -> None:
        super().__init__(similarity)
        self._hashes: Blocks[np.uint64] = Blocks()
        self._thumbnails: Blocks[np.uint8] = Blocks()

    def add(self, contents: Sequence[Image.Image | None]) -> None:
        """Take in some images; one that cannot be read counts as black."""
        sketches = [_sketch(Image.new("L", (1, 1)) if image is None else image) for image in contents]
        if sketches:
            self._hashes.add(np.stack([given for given, _ in sketches]).view(np.uint64)[:, 0])
            self._thumbnails.add(np.stack([thumbnail for _, thumbnail in sketches]))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._hashes)

    def band(self, rows: Rows) -> Iterator[BandKeys]:
        """Yield, for each two bytes of the hash, their value."""
        hashes = self._hashes.join()[rows].reshape(-1, 1).view(np.uint8).astype(np.uint64)
        for first, second in combinations(range(HASH_BYTES), 2):
            yield (hashes[:, first] << np.uint64(8)) | hashes[:, second]

    def compare(self, first: Rows, second: Rows) -> Similarities:
        """Return one minus the thumbnails' difference over their contrast; 0 where the hashes are far apart.

        Or one minus twice their difference at the same brightness and contrast, where that is more.
        """
        hashes = self._hashes.join()
        near = np.flatnonzero(np.bitwise_count(hashes[first] ^ hashes[second]) <= HAMMING_RADIUS)
        similarities = np.zeros(len(first), dtype=np.float32)
        if len(near):
            similarities[near] = self._compare_thumbnails(first[near], second[near])
        return similarities

    def _compare_thumbnails(self, first: Rows, second: Rows) -> Similarities:
        ours, theirs = (self._thumbnails.join()[rows].astype(np.float32) for rows in (first, second))
        contrast = np.sqrt((ours[:, :NUM_LIGHT].var(axis=1) + theirs[:, :NUM_LIGHT].var(axis=1)) / 2)
        plain = 1 - _measure_difference(ours, theirs) / np.maximum(contrast, LEAST_CONTRAST)
        levelled = 1 - LEVELLING_COST * _measure_difference(_level(ours), _level(theirs))
        similarities: Similarities = np.maximum(np.maximum(plain, levelled), 0)
        return similarities


def _level(thumbnails: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return thumbnails of one brightness, in units of their contrast."""
    middles = np.full_like(thumbnails, NEUTRAL_COLOUR)
    middles[:, :NUM_LIGHT] = thumbnails[:, :NUM_LIGHT].mean(axis=1, keepdims=True)
    contrast = thumbnails[:, :NUM_LIGHT].std(axis=1, keepdims=True)
    levelled: npt.NDArray[np.float32] = (thumbnails - middles) / np.maximum(contrast, LEAST_CONTRAST)
    return levelled


def _measure_difference(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # A colour stands for as many points of the thumbnail as it was averaged over.
    counts = np.full(ours.shape[1], NUM_LIGHT / COLOUR_SIDE**2, dtype=np.float32)
    counts[:NUM_LIGHT] = 1.0
    difference: npt.NDArray[np.float32] = np.sqrt(((ours - theirs) ** 2 * counts).sum(axis=1) / NUM_LIGHT)
    return difference


def _sketch(image: Image.Image) -> tuple[npt.NDArray[np.uint8], Thumbnail]:
    """Return the perceptual hash as 8 bytes, and the thumbnail: lightness finely, the two colours coarsely."""
    light, *colours = flatten_image(image).convert("YCbCr").split()
    parts = [_shrink(light, LIGHT_SIDE), *(_shrink(colour, COLOUR_SIDE) for colour in colours)]
    return np.packbits(imagehash.phash(light).hash), np.concatenate(parts)


def _shrink(channel: Image.Image, side: int) -> Thumbnail:
    return np.asarray(channel.resize((side, side), Image.Resampling.BOX), dtype=np.uint8).reshape(-1)
