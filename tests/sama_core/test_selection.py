"""Selection: one nested order, with each class's floor kept at every prefix."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sama_core.errors import OptionsError
from sama_core.selection import choose_rule, num_kept, order_rows

ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, -3.0, 7.5]), st.integers(0, 3)), min_size=1, max_size=60
)
FLOORS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.999, 1.0])


def unpack(rows: list[tuple[float, int]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.array([s for s, _ in rows], dtype=np.float32), np.array([c for _, c in rows], dtype=np.int64)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, rule=st.sampled_from(["top", "balanced"]), floor=FLOORS)
def test_every_prefix_keeps_the_floor_of_every_class(rows: list[tuple[float, int]], rule: str, floor: float) -> None:
    score, labels = unpack(rows)
    rank = order_rows(score, labels, rule, floor)
    assert sorted(rank.tolist()) == list(range(len(rows)))
    sizes = np.bincount(labels, minlength=4)
    for kept in range(len(rows) + 1):
        held = np.bincount(labels[rank < kept], minlength=4)
        for label in range(4):
            due = int(Fraction(str(floor)) * kept * int(sizes[label]) / len(rows))
            assert held[label] >= due, (kept, label)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, rule=st.sampled_from(["top", "balanced"]), floor=FLOORS)
def test_better_rows_of_a_class_go_first_and_ties_in_row_order(
    rows: list[tuple[float, int]], rule: str, floor: float
) -> None:
    score, labels = unpack(rows)
    rank = order_rows(score, labels, rule, floor)
    for label in set(labels.tolist()):
        mine = np.flatnonzero(labels == label)
        by_rank = mine[np.argsort(rank[mine])]
        assert by_rank.tolist() == sorted(mine.tolist(), key=lambda row: (-score[row], row))


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_top_without_a_floor_is_the_order_of_the_scores(rows: list[tuple[float, int]]) -> None:
    score, labels = unpack(rows)
    rank = order_rows(score, labels, "top", 0.0)
    assert (np.diff(score[np.argsort(rank)]) <= 0).all()


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, floor=FLOORS)
def test_balanced_gives_each_class_its_share(rows: list[tuple[float, int]], floor: float) -> None:
    score, labels = unpack(rows)
    rank = order_rows(score, labels, "balanced", floor)
    sizes = np.bincount(labels, minlength=4)
    for kept in range(len(rows) + 1):
        held = np.bincount(labels[rank < kept], minlength=4)
        assert (np.abs(held - kept * sizes / len(rows)) < 4).all()


def test_floor_moves_only_what_it_must() -> None:
    score = np.arange(10, 0, -1).astype(np.float32)
    labels = np.array([0] * 5 + [1] * 5)
    assert order_rows(score, labels, "top", 0.0).tolist() == list(range(10))
    # floor 0.4: class 1 is due its first row among the first 5, its second among the last 10
    assert order_rows(score, labels, "top", 0.4).tolist() == [0, 1, 2, 3, 5, 4, 6, 7, 8, 9]


def test_a_million_rows_take_seconds() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 1_000_000)
    score = (generator.random(1_000_000) - labels).astype(np.float32)
    rank = order_rows(score, labels, "top", 0.3)
    held = np.bincount(labels[rank < 500_000], minlength=10)
    assert (held >= np.floor(0.3 * 0.5 * np.bincount(labels))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [0], "best", 0.3), "rule: 'best'; wanted one of top, balanced"),
        (([1.0], [0], "top", 1.5), "class_floor: 1.5; wanted a number from 0 to 1"),
        (([np.nan], [0], "top", 0.3), "score: holds a number that is not finite; wanted finite numbers only"),
        (([1.0, 2.0], [0], "top", 0.3), r"score: shape (2,); wanted one number for each of 1 labels"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[list[float], list[int], str, float], message: str) -> None:
    score, labels, rule, floor = arguments
    with pytest.raises(OptionsError) as caught:
        order_rows(np.array(score, dtype=np.float32), np.array(labels), rule, floor)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fraction", "total", "labelled", "kept"),
    [(1.0, 10, 10, 10), (0.8, 10, 10, 8), (0.25, 10, 10, 3), (0.7, 10, 5, 5), (1e-9, 10, 10, 1)],
)
def test_num_kept_is_of_the_total(fraction: float, total: int, labelled: int, kept: int) -> None:
    assert num_kept(fraction, total, labelled) == kept


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_keep_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(OptionsError, match=r"keep_fraction: .*; wanted a number above 0, at most 1"):
        num_kept(fraction, 10, 10)


def test_auto_says_what_it_chose_and_why() -> None:
    even = np.arange(1000) % 4
    assert choose_rule("auto", 0.8, even) == ("top", "top: 80% is kept, so only the rows of lowest score go")
    rule, reason = choose_rule("auto", 0.3, even)
    assert (rule, reason[:26]) == ("balanced", "balanced: only 30% is kept")
    rare = np.concatenate((even, [4, 4, 4]))
    assert choose_rule("auto", 0.8, rare) == ("balanced", "balanced: the smallest class has only 3 rows")
    assert choose_rule("top", 0.1, rare) == ("top", "top, as asked for")
    with pytest.raises(OptionsError, match="rule: 'coverage'; wanted one of auto, top, balanced"):
        choose_rule("coverage", 0.5, even)
