"""Digests of what an example is made of, and finding rows that repeat."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Keys = npt.NDArray[np.bytes_]

KEY_BYTES = 16
_LARGEST_EXACT = 2.0**53


def digest_contents(contents: Iterable[bytes]) -> list[bytes]:
    """Return the SHA-256 of each example's canonical bytes: UTF-8 of a text, encoded bytes of an image."""
    return [hashlib.sha256(content).digest() for content in contents]


def digest_features(features: pa.RecordBatch) -> list[bytes]:
    """Return the SHA-256 of each example's features, as JSON with sorted keys and no spaces.

    A missing value is null; a whole number is written without a decimal point, whatever its type in the file.
    """
    names = sorted(features.schema.names)
    columns = [_list_values(features, name) for name in names]
    prefixes = [json.dumps(name, ensure_ascii=False) + ":" for name in names]
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return [
        hashlib.sha256(
            (
                "{" + ",".join([prefix + encode(value) for prefix, value in zip(prefixes, row, strict=True)]) + "}"
            ).encode()
        ).digest()
        for row in zip(*columns, strict=True)
    ]


def _list_values(features: pa.RecordBatch, name: str) -> list[object]:
    values: list[object] = features.column(name).to_pylist()
    return [
        int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_EXACT else value
        for value in values
    ]


class RowsDigest:
    """One digest over every curated row: its content, its id and its given label, in input order."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def add(self, digests: Sequence[bytes], ids: Sequence[object], labels: Sequence[object]) -> None:
        """Take in the rows of one batch."""
        lines = [
            json.dumps([digest.hex(), given, label], ensure_ascii=False, separators=(",", ":"))
            for digest, given, label in zip(digests, ids, labels, strict=True)
        ]
        self._state.update(("\n".join(lines) + "\n").encode() if lines else b"")

    def get_digest(self) -> str:
        """Return the digest of the rows so far, 64 hexadecimal digits."""
        return self._state.hexdigest()


def build_keys(digests: Sequence[bytes]) -> Keys:
    """Return the first 16 bytes of each digest as one sortable array: 16 bytes a row, however long the content."""
    return np.frombuffer(b"".join(digest[:KEY_BYTES] for digest in digests), dtype=f"S{KEY_BYTES}")


def build_id_keys(ids: Iterable[object]) -> Keys:
    """Return keys of ids; equal keys, equal ids."""
    return build_keys([hashlib.sha256(str(given).encode()).digest() for given in ids])


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that repeat an earlier one: how many, the first pairs (earlier, later), and which rows they are."""

    count: int
    pairs: tuple[tuple[int, int], ...]
    rows: npt.NDArray[np.int64]


def find_repeats(keys: Keys, num_pairs: int = 5) -> Repeats:
    """Find the rows whose key already stands in an earlier row."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1 if len(keys) else np.empty(0, dtype=np.int64)
    starts = np.ones(len(keys), dtype=np.bool_)
    starts[repeats] = False
    first_of = np.maximum.accumulate(np.where(starts, np.arange(len(keys)), 0))
    rows, firsts = order[repeats], order[first_of[repeats]]
    by_row = np.argsort(rows, kind="stable")
    pairs = tuple((int(firsts[at]), int(rows[at])) for at in by_row[:num_pairs])
    return Repeats(len(rows), pairs, rows[by_row])


def find_shared(first: Keys, second: Keys, num_pairs: int = 5) -> Repeats:
    """Find the rows of `second` whose key also stands in `first`; pairs are (row of first, row of second)."""
    order = np.argsort(first, kind="stable")
    ordered = first[order]
    places = np.searchsorted(ordered, second)
    inside = places < len(ordered)
    shared = np.zeros(len(second), dtype=np.bool_)
    shared[inside] = ordered[places[inside]] == second[inside]
    rows = np.flatnonzero(shared)
    pairs = tuple((int(order[places[row]]), int(row)) for row in rows[:num_pairs])
    return Repeats(len(rows), pairs, rows)


def group_rows(keys: Keys, others: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the number of each row's key among the different ones, and that of each of the others, -1 for none."""
    distinct, groups = np.unique(keys, return_inverse=True)
    places = np.minimum(np.searchsorted(distinct, others), len(distinct) - 1)
    return groups.astype(np.int64), np.where(distinct[places] == others, places, -1).astype(np.int64)
