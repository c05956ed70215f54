"""Texts: MinHash signatures of their shingles, cut into bands (locality-sensitive hashing)."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from service.storage.sketches import AbstractSketches, BandKeys, Blocks, Rows, Similarities

NUM_PERMUTATIONS = 128
MAX_BYTES = 4096  # of a text; what follows is not looked at
SHINGLE_BYTES = 5
# Where one word more or less makes another sentence: shorter texts count as alike only when equal once normalised.
LEAST_BYTES = 40
RECALL = 0.995
MAX_BAND_WIDTH = 16
_SCHEME = "affine32"
_MIX = np.uint64(0x9E3779B97F4A7C15)

Shingles = npt.NDArray[np.uint32]


class TextSketches(AbstractSketches[str]):
    """MinHash signatures; two texts are as alike as their sets of shingles (Jaccard), within 0.04 or so."""

    def __init__(self, similarity: float) -> None:
        super().__init__(similarity)
        self._width = choose_band_width(similarity)
        self._permutations = MinHash(NUM_PERMUTATIONS, scheme=_SCHEME).permutations
        self._signatures: Blocks[np.uint32] = Blocks()

    def add(self, contents: Sequence[str]) -> None:
        """Take in some texts."""
        if contents:
            self._signatures.add(np.stack([self._sign(text) for text in contents]))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._signatures)

    def band(self, rows: Rows) -> Iterator[BandKeys]:
        """Yield the keys of each band: a hash over `width` entries of the signature."""
        signatures = self._signatures.join()[rows]
        for start in range(0, NUM_PERMUTATIONS - self._width + 1, self._width):
            keys = np.zeros(len(rows), dtype=np.uint64)
            for column in range(start, start + self._width):
                keys = (keys ^ signatures[:, column]) * _MIX
                keys ^= keys >> np.uint64(29)
            yield keys

    def compare(self, first: Rows, second: Rows) -> Similarities:
        """Return the share of equal entries of the signatures: an estimate of the Jaccard similarity."""
        signatures = self._signatures.join()
        shares: Similarities = (signatures[first] == signatures[second]).mean(axis=1, dtype=np.float32)
        return shares

    def _sign(self, text: str) -> npt.NDArray[np.uint32]:
        sketch = MinHash(NUM_PERMUTATIONS, hashfunc=int, permutations=self._permutations, scheme=_SCHEME)
        sketch.update_batch(cut_shingles(text).tolist())
        return np.asarray(sketch.hashvalues, dtype=np.uint32)


def cut_shingles(text: str) -> Shingles:
    """Return the hashes of a text's shingles: every five bytes in a row of its UTF-8, normalised.

    Normalised: compatibility forms unified (NFKC), case folded, white space made one blank. A short text is one
    shingle as a whole.
    """
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()[:MAX_BYTES]
    padded = np.frombuffer(plain if len(plain) >= LEAST_BYTES else plain.ljust(LEAST_BYTES, b"\0"), dtype=np.uint8)
    num_shingles = len(padded) - SHINGLE_BYTES + 1
    packed = np.zeros(num_shingles, dtype=np.uint64)
    for shift in range(SHINGLE_BYTES):
        packed = (packed << np.uint64(8)) | padded[shift : shift + num_shingles]
    mixed = packed * _MIX
    if len(plain) < LEAST_BYTES:
        places = np.arange(1, num_shingles + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        mixed = np.array([np.sum((mixed ^ (mixed >> np.uint64(31))) * places * _MIX, dtype=np.uint64)])
    return ((mixed ^ (mixed >> np.uint64(32))) & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def choose_band_width(similarity: float) -> int:
    """Return the most entries a band may have so that texts this alike still meet in one of the bands, near surely."""
    for width in range(MAX_BAND_WIDTH, 1, -1):
        num_bands = NUM_PERMUTATIONS // width
        if 1 - (1 - similarity**width) ** num_bands >= RECALL:
            return width
    return 1
