"""Digests of content, and rows that repeat, against the plain definition."""

import hashlib
import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from service.storage.digests import (
    RowsDigest,
    build_id_keys,
    build_keys,
    digest_contents,
    digest_features,
    find_repeats,
    find_shared,
)


def keys_of(contents: list[bytes]):  # type: ignore[no-untyped-def]
    return build_keys(digest_contents(contents))


def test_features_digest_is_that_of_canonical_json() -> None:
    batch = pa.RecordBatch.from_pydict({"b": ["x", None], "a": pa.array([1.0, 0.5])})
    rows = [{"a": 1, "b": "x"}, {"a": 0.5, "b": None}]
    texts = [json.dumps(row, sort_keys=True, separators=(",", ":")) for row in rows]
    assert digest_features(batch) == [hashlib.sha256(text.encode()).digest() for text in texts]


def test_features_digest_knows_no_type_width() -> None:
    whole = pa.RecordBatch.from_pydict({"a": pa.array([1.0, None])})
    other = pa.RecordBatch.from_pydict({"a": pa.array([1, None], pa.int8())})
    assert digest_features(whole) == digest_features(other)


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=20))
def test_repeats(contents: list[bytes]) -> None:
    found = find_repeats(keys_of(contents), num_pairs=100)
    pairs = [(contents.index(content), row) for row, content in enumerate(contents) if content in contents[:row]]
    assert found.count == len(pairs)
    assert list(found.pairs) == pairs
    assert found.rows.tolist() == [row for _, row in pairs]


@given(
    st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=9), st.lists(st.sampled_from([b"b", b"c", b"d"]), max_size=9)
)
def test_shared(first: list[bytes], second: list[bytes]) -> None:
    found = find_shared(keys_of(first), keys_of(second), num_pairs=100)
    pairs = [(first.index(content), row) for row, content in enumerate(second) if content in first]
    assert found.count == len(pairs)
    assert list(found.pairs) == pairs


def test_rows_digest_does_not_depend_on_batches() -> None:
    digests = digest_contents([b"a", b"b", b"c"])
    whole, parts = RowsDigest(), RowsDigest()
    whole.add(digests, [1, 2, 3], ["x", None, "y"])
    parts.add(digests[:1], [1], ["x"])
    parts.add([], [], [])
    parts.add(digests[1:], [2, 3], [None, "y"])
    assert whole.get_digest() == parts.get_digest()
    other = RowsDigest()
    other.add(digests, [1, 2, 3], ["x", None, "z"])
    assert other.get_digest() != whole.get_digest()


def test_id_keys_tell_ids_apart() -> None:
    assert find_repeats(build_id_keys([1, 2, 10, 1])).pairs == ((0, 3),)
