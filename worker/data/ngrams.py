"""Hashes of the words and character n-grams of texts, for a whole batch at once and the same everywhere.

A batch is one run of bytes; the polynomial hash of any stretch of it follows from prefix sums, modulo 2**64, so no
loop runs over the grams. Grams of characters are grams of UTF-8 bytes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

CHARACTER_SIZES = (3, 4, 5)
WORD_SIZES = (1, 2)

_BASE = 0x9E3779B97F4A7C15  # odd, hence with an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_SEPARATOR = 0x20


@dataclass(frozen=True)
class Grams:
    """The grams of a batch, in no particular order: which example each one is of, its hash, is it of words."""

    example: NDArray[np.int64]
    hash: Hashes
    is_word: NDArray[np.bool_]


def hash_grams(texts: list[str]) -> Grams:
    """Return every word, pair of words and stretch of 3 to 5 characters of lower-cased texts.

    Example:
        >>> grams = hash_grams(["Buy now", "buy NOW"])
        >>> bool((grams.hash[grams.example == 0] == grams.hash[grams.example == 1]).all())
        True
    """
    # Every text is framed by blanks, so that grams know where words begin and end.
    encoded = [f" {' '.join(text.lower().split())} ".encode() for text in texts]
    lengths = np.array([len(part) for part in encoded], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    owner = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    stretches = _Stretches(data)
    found = [_hash_characters(stretches, owner, size) for size in CHARACTER_SIZES]
    first, after = _find_words(data)
    found += [_hash_words(stretches, owner, first, after, size) for size in WORD_SIZES]
    return Grams(
        np.concatenate([grams.example for grams in found]),
        np.concatenate([grams.hash for grams in found]),
        np.concatenate([grams.is_word for grams in found]),
    )


class _Stretches:
    """Hashes of stretches of one run of bytes."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        powers = _list_powers(_BASE, len(data))
        self._sums = np.concatenate(
            [np.zeros(1, np.uint64), np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers)]
        )
        self._inverse_powers = _list_powers(_INVERSE, len(data))

    def hash(self, first: NDArray[np.int64], after: NDArray[np.int64], kind: int) -> Hashes:
        """Return the hash of each stretch [first, after), other for every kind."""
        polynomial = (self._sums[after] - self._sums[first]) * self._inverse_powers[first]
        return _mix(polynomial ^ np.uint64(_mix_number(kind)))


def _hash_characters(stretches: _Stretches, owner: NDArray[np.int64], size: int) -> Grams:
    first = np.arange(max(0, len(owner) - size + 1), dtype=np.int64)
    first = first[owner[first] == owner[first + size - 1]]
    return Grams(owner[first], stretches.hash(first, first + size, size), np.zeros(len(first), np.bool_))


def _hash_words(
    stretches: _Stretches, owner: NDArray[np.int64], first: NDArray[np.int64], after: NDArray[np.int64], size: int
) -> Grams:
    last = np.arange(size - 1, len(first), dtype=np.int64)
    start = last - (size - 1)
    together = owner[first[start]] == owner[first[last]]
    start, last = start[together], last[together]
    hashes = stretches.hash(first[start], after[start], 100)
    for step in range(1, size):
        word = stretches.hash(first[start + step], after[start + step], 100 + step)
        hashes = _mix(hashes * np.uint64(_BASE) + word)
    return Grams(owner[first[start]], hashes, np.ones(len(start), np.bool_))


def _find_words(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where words (letters, digits, and every byte past ASCII) begin, and the byte after each."""
    inside = _IS_WORD_BYTE[data]
    edges = np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _list_powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


def _mix(values: Hashes) -> Hashes:
    """Spread every bit over all 64 (the finishing steps of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _mix_number(kind: int) -> int:
    return int(_mix(np.array([kind], dtype=np.uint64))[0])


_IS_WORD_BYTE = np.array([byte >= 0x80 or chr(byte).isalnum() for byte in range(256)], dtype=np.bool_)
