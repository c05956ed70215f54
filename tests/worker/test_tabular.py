"""Tabular encoding: missing values, unseen categories, and nothing learned from rows that are not trained on."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.data.arrays import ArrayFolder
from worker.data.examples import Part
from worker.data.tabular import CLIP_STANDARD_DEVIATIONS, MAX_CATEGORIES, TabularEncoder


def make_part(columns: dict[str, pa.Array], rows: list[int] | None = None) -> Part:
    table = pa.table(columns)
    chosen = np.arange(table.num_rows) if rows is None else np.array(rows)
    return Part("train", table, chosen, np.zeros(len(chosen), dtype=np.int64))


def encode(encoder: TabularEncoder, part: Part) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as path, ArrayFolder(Path(path) / "1", lambda: None) as folder:
        inputs = encoder.encode(part, 2, folder).fetch(torch.arange(len(part.rows)))
    assert isinstance(inputs, torch.Tensor)
    return inputs


def numbers(*values: float | None) -> pa.Array:
    return pa.array(values, pa.float64())


def words(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string())


@settings(deadline=None)
@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), min_size=2, max_size=20),
    st.lists(st.none() | st.sampled_from(["a", "b", "c"]), min_size=2, max_size=20),
)
def test_whatever_is_missing_every_input_is_finite_and_every_category_is_one(
    values: list[float | None], names: list[str | None]
) -> None:
    size = min(len(values), len(names))
    part = make_part({"x": numbers(*values[:size]), "c": words(*names[:size])})
    encoder = TabularEncoder.fit(part)
    inputs = encode(encoder, part)
    assert inputs.shape == (size, encoder.shape.sizes[0])
    assert torch.isfinite(inputs).all()
    has_mark = None in values[:size]
    assert (inputs[:, 2 if has_mark else 1 :].sum(1) == 1).all()
    if has_mark:
        assert inputs[:, 1].tolist() == [float(value is None) for value in values[:size]]


def test_numbers_are_standardised_and_a_missing_one_is_the_median() -> None:
    inputs = encode(TabularEncoder.fit(make_part({"x": numbers(0, 2, 10, None)})), make_part({"x": numbers(2, None)}))
    assert inputs[0, 0] == inputs[1, 0], "the median of 0, 2 and 10 is 2"
    filled = np.array([0.0, 2.0, 10.0, 2.0])
    assert inputs[0, 0] == pytest.approx((2.0 - filled.mean()) / filled.std())
    assert inputs[:, 1].tolist() == [0.0, 1.0]


def test_a_category_never_seen_in_training_has_its_own_place() -> None:
    encoder = TabularEncoder.fit(make_part({"c": words("a", "a", "b", None)}))
    inputs = encode(encoder, make_part({"c": words("a", "b", "zebra", None)}))
    places = inputs.argmax(1).tolist()
    assert len(set(places)) == 4
    assert (inputs.sum(1) == 1).all()


def test_a_value_missing_only_later_is_taken_as_the_median() -> None:
    inputs = encode(TabularEncoder.fit(make_part({"x": numbers(1, 2, 3)})), make_part({"x": numbers(None, 2)}))
    assert inputs[0].tolist() == inputs[1].tolist()


def test_only_the_rows_named_are_learned_from() -> None:
    columns = {"x": numbers(0, 1, 1e9), "c": words("a", "a", "rare")}
    encoder = TabularEncoder.fit(make_part(columns, [0, 1]))
    inputs = encode(encoder, make_part(columns))
    assert inputs[2, 0] == CLIP_STANDARD_DEVIATIONS, "an extreme value is bounded"
    assert encoder.shape.sizes == (1 + 3,), "one number; missing, other and 'a'"


def test_rare_categories_share_a_place_and_that_is_said() -> None:
    names = [f"v{number:03}" for number in range(MAX_CATEGORIES + 6)]
    encoder = TabularEncoder.fit(make_part({"c": words(*names, *names[:3])}))
    assert encoder.shape.sizes == (MAX_CATEGORIES + 2,)
    assert "70 values" in encoder.notes[0]
    assert "'c'" in encoder.notes[0]


def test_a_column_of_one_value_is_said_to_tell_nothing() -> None:
    encoder = TabularEncoder.fit(make_part({"x": numbers(5, 5, 5)}))
    assert encoder.notes == ["column 'x' has the same value in every training row and tells nothing"]
    assert encode(encoder, make_part({"x": numbers(5, math.pi)}))[0].tolist() == [0.0]


def test_rows_apart_are_read_as_if_they_stood_together() -> None:
    columns = {"x": numbers(*range(50)), "c": words(*("ab"[i % 2] for i in range(50)))}
    encoder = TabularEncoder.fit(make_part(columns))
    apart = encode(encoder, make_part(columns, [3, 17, 49]))
    assert torch.equal(apart, encode(encoder, make_part(columns))[[3, 17, 49]])
