"""Hashed n-grams: the same everywhere, counted, weighted, and read back by row."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.data.arrays import ArrayFolder
from worker.data.examples import Part
from worker.data.ngrams import hash_grams
from worker.data.text import MAX_GRAMS_PER_TEXT, TextEncoder, count_grams


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ArrayFolder]:
    with ArrayFolder(tmp_path / "encoded" / "1", lambda: None) as opened:
        yield opened


def make_part(texts: list[str | None], rows: list[int] | None = None) -> Part:
    chosen = np.arange(len(texts)) if rows is None else np.array(rows)
    return Part("train", pa.table({"text": pa.array(texts, pa.large_string())}), chosen, chosen % 2)


def test_hashes_are_these_on_every_machine_and_in_every_run() -> None:
    grams = hash_grams(["ab c"])
    assert [f"{value:016x}" for value in grams.hash] == [
        "e8a01ca70cdfe1e5", "266429c4583d580f", "91202d30f43cf281", "17c560598afe2391",
        "8e181f719951d544", "ebf38294df2df3ac", "c6d564c41c3e73c7", "cc722365169694fa",
        "173b9b7926183fdd", "a57118353fda4249", "4541966164622b3f", "fe5fcf0951ba9fbc",
    ]  # fmt: skip
    assert grams.is_word.sum() == 3, "two words and one pair of them"


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_a_text_has_the_same_grams_whatever_stands_beside_it(texts: list[str]) -> None:
    together = hash_grams(texts)
    for position, text in enumerate(texts):
        alone = hash_grams([text])
        assert sorted(together.hash[together.example == position]) == sorted(alone.hash)


def test_different_grams_of_a_batch_have_different_hashes() -> None:
    words = [f"word{number}" for number in range(500)]
    grams = hash_grams(words)
    assert len(np.unique(grams.hash[grams.is_word])) == 500


def test_grams_are_counted_by_text() -> None:
    counted = count_grams(["spam spam", "spam"])
    words = counted.is_word & (counted.example == 0)
    assert sorted(counted.count[words]) == [1, 2], "the pair once, the word twice"


def test_weights_of_a_text_square_to_one_and_rare_grams_weigh_more(folder: ArrayFolder) -> None:
    texts = ["the cat", "the dog", "the cat", "the dog", "the end", "the end"]
    examples = TextEncoder.fit(make_part(list(texts))).encode(make_part(list(texts)), 2, folder)
    ids, weights = examples.fetch(torch.arange(6))
    assert torch.allclose(weights.square().sum(1), torch.ones(6), atol=1e-5)
    shared = set(ids[0].tolist()) & set(ids[1].tolist()) - {0}
    common = weights[0][[int(i) in shared for i in ids[0]]].max()
    assert common < weights[0].max()


def test_unseen_empty_and_missing_texts_become_empty_lists(folder: ArrayFolder) -> None:
    encoder = TextEncoder.fit(make_part(["good morning", "good evening"]))
    texts: list[str | None] = ["xyzzy", "", None, "good"]
    ids, weights = encoder.encode(make_part(texts), 2, folder).fetch(torch.arange(4))
    assert ids.shape == weights.shape
    assert (ids[:3] == 0).all()
    assert (weights[:3] == 0).all()
    assert (ids[3] > 0).any()


def test_rows_are_fetched_in_the_order_asked_for(folder: ArrayFolder) -> None:
    texts = ["aaaa bbbb", "bbbb cccc dddd", "aaaa bbbb", "bbbb cccc dddd"]
    examples = TextEncoder.fit(make_part(list(texts))).encode(make_part(list(texts), [1, 2, 3]), 2, folder)
    both, one = examples.fetch(torch.tensor([2, 1]))[0], examples.fetch(torch.tensor([1]))[0]
    assert both[1].unique().tolist() == torch.cat([torch.zeros(1, dtype=torch.int64), one[0]]).unique().tolist()
    assert examples.labels.tolist() == [1, 0, 1]


def test_a_very_long_text_keeps_its_heaviest_grams_and_is_said_to_be_cut(folder: ArrayFolder) -> None:
    generator = np.random.default_rng(0)
    long = " ".join(str(number) for number in generator.integers(10**6, 10**7, 2000))
    part = make_part([long, long])
    encoder = TextEncoder.fit(part)
    ids, _weights = encoder.encode(part, 2, folder).fetch(torch.tensor([0]))
    assert (ids > 0).sum() == MAX_GRAMS_PER_TEXT
    assert encoder.notes == ["2 texts are read up to their first 8192 characters"]
