"""Text encoding: hashed words and character n-grams, the frequent ones kept, weighted by how telling they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.data.arrays import Array, ArrayFolder, take_batches
from worker.data.examples import AbstractEncoder, InputShape, Part, RaggedExamples
from worker.data.ngrams import Hashes, hash_grams

MAX_GRAMS = 1 << 16
MAX_CHARACTERS = 8192
MAX_GRAMS_PER_TEXT = 2048
_BUCKET_BITS = 22
_BATCH_TEXTS = 256
_MIN_TEXTS_PER_GRAM = 2


@dataclass(frozen=True)
class CountedGrams:
    """The distinct grams of a batch, ordered by example: example, bucket of the hash, count, is it of words."""

    example: NDArray[np.int64]
    bucket: NDArray[np.int64]
    count: NDArray[np.int64]
    is_word: NDArray[np.bool_]


class TextEncoder(AbstractEncoder):
    """Encodes a text as ids of its grams (1..K; 0 is padding) and their weights.

    The weight of a gram is (1 + log of its count) times its inverse text frequency among the training rows; the squares
    of the weights of a text add up to one half for words and one half for characters, so that neither drowns the other.
    """

    def __init__(self, id_of_bucket: NDArray[np.int32], rarity: NDArray[np.float32], notes: list[str]) -> None:
        self._id_of_bucket = id_of_bucket
        self._rarity = rarity
        self.notes = notes
        self.shape = InputShape("text", (len(rarity),))

    @classmethod
    def fit(cls, part: Part) -> "TextEncoder":
        """Choose the grams: of at least two training texts, the most frequent first, at most 65,536."""
        num_texts = np.zeros(1 << _BUCKET_BITS, dtype=np.int32)
        num_cut = 0
        for texts, was_cut in _read_texts(part):
            counted = count_grams(texts)
            num_texts += np.bincount(counted.bucket, minlength=len(num_texts)).astype(np.int32)
            num_cut += was_cut
        frequent = np.flatnonzero(num_texts >= _MIN_TEXTS_PER_GRAM)
        chosen = np.sort(frequent[np.argsort(-num_texts[frequent], kind="stable")[:MAX_GRAMS]])
        id_of_bucket = np.zeros(len(num_texts), dtype=np.int32)
        id_of_bucket[chosen] = np.arange(1, len(chosen) + 1)
        rarity = np.log((1 + len(part.rows)) / (1 + num_texts[chosen].astype(np.float64))) + 1.0
        notes = [f"{num_cut} texts are read up to their first {MAX_CHARACTERS} characters"] if num_cut else []
        return cls(id_of_bucket, np.concatenate([[0.0], rarity]).astype(np.float32), notes)

    def encode(self, part: Part, num_classes: int, folder: ArrayFolder) -> RaggedExamples:
        """Encode texts into ids and weights, one list each."""
        lengths: list[NDArray[np.int64]] = []
        ids_name, weights_name = f"{part.name}-ids", f"{part.name}-weights"
        written = folder.write_all(
            {ids_name: (np.int32, ()), weights_name: (np.float32, ())},
            self._encode_batches(part, ids_name, weights_name, lengths),
        )
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))])
        columns = {"ids": (written[ids_name], torch.int64), "weights": (written[weights_name], torch.float32)}
        return RaggedExamples(columns, offsets, part.labels, num_classes, as_mapping=False)

    def _encode_batches(
        self, part: Part, ids_name: str, weights_name: str, lengths: list[NDArray[np.int64]]
    ) -> Iterator[dict[str, Array]]:
        for texts, _was_cut in _read_texts(part):
            example, ids, weights = self._weigh(count_grams(texts), len(texts))
            lengths.append(np.bincount(example, minlength=len(texts)).astype(np.int64))
            yield {ids_name: ids, weights_name: weights}

    def _weigh(
        self, counted: CountedGrams, num_texts: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        known = self._id_of_bucket[counted.bucket] > 0
        example, is_word = counted.example[known], counted.is_word[known]
        ids = self._id_of_bucket[counted.bucket[known]]
        weights = (1.0 + np.log(counted.count[known])) * self._rarity[ids]
        group = example * 2 + is_word
        squares = np.bincount(group, weights=weights**2, minlength=2 * num_texts)
        weights = weights / np.sqrt(2.0 * squares[group])
        kept = _keep_heaviest(example, weights)
        return example[kept], ids[kept], weights[kept].astype(np.float32)


def count_grams(texts: list[str]) -> CountedGrams:
    """Return the distinct grams of each text with their counts, ordered by text and then by bucket."""
    grams = hash_grams(texts)
    buckets: Hashes = grams.hash >> np.uint64(64 - _BUCKET_BITS)
    keys = (grams.example << _BUCKET_BITS) | buckets.astype(np.int64)
    distinct, where, counts = np.unique(keys, return_index=True, return_counts=True)
    return CountedGrams(distinct >> _BUCKET_BITS, distinct & ((1 << _BUCKET_BITS) - 1), counts, grams.is_word[where])


def _keep_heaviest(example: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions, in order, of at most MAX_GRAMS_PER_TEXT heaviest grams of each text."""
    order = np.lexsort((-weights, example))
    starts = np.searchsorted(example[order], example[order], side="left")
    place = np.arange(len(order)) - starts
    return np.sort(order[place < MAX_GRAMS_PER_TEXT])


def _read_texts(part: Part) -> Iterator[tuple[list[str], int]]:
    """Yield texts, cut to their first characters, with the number of those that were cut."""
    for batch in take_batches(part.table, part.rows, _BATCH_TEXTS):
        texts = [text or "" for text in batch.column(0).to_pylist()]
        num_cut = sum(len(text) > MAX_CHARACTERS for text in texts)
        yield [text[:MAX_CHARACTERS] for text in texts], num_cut
