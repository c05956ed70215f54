"""Selection: one nested order, with each class's floor kept at every prefix."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sama_core.errors import OptionsError
from sama_core.selection import RULES, choose_noise_cut, choose_rule, find_cut_off, num_kept, order_rows
from sama_core.selection.spread import spread_points

ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, -3.0, 7.5]), st.integers(0, 3)), min_size=1, max_size=60
)
FLOORS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.999, 1.0])


def unpack(rows: list[tuple[float, int]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.array([s for s, _ in rows], dtype=np.float32), np.array([c for _, c in rows], dtype=np.int64)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, rule=st.sampled_from(RULES), floor=FLOORS)
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
@given(rows=ROWS, floor=FLOORS, rule=st.sampled_from(["balanced", "coverage"]))
def test_balanced_and_coverage_give_each_class_its_share(
    rows: list[tuple[float, int]], floor: float, rule: str
) -> None:
    score, labels = unpack(rows)
    rank = order_rows(score, labels, rule, floor)
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


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(-5, 5, width=32), st.integers(0, 3), st.sampled_from([0.0, 0.5, 0.51, 0.9, 1.0]),
            st.floats(-3, 3, width=32),
        ),
        max_size=80,
    ),
    rule=st.sampled_from(RULES),
    cut=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    has_representation=st.booleans(),
)  # fmt: skip
def test_rows_cut_off_come_last_and_the_others_keep_their_order_and_floor(
    rows: list[tuple[float, int, float, float]], rule: str, cut: float, has_representation: bool
) -> None:
    score, noise, place = (np.array([row[part] for row in rows], dtype=np.float32) for part in (0, 2, 3))
    labels = np.array([row[1] for row in rows], dtype=np.int64)
    representation = np.stack((place, -place), axis=1) if has_representation else None
    rank = order_rows(score, labels, rule, 0.5, noise_score=noise, representation=representation, noise_cut=cut)
    assert sorted(rank.tolist()) == list(range(len(rows)))
    doubtful = find_cut_off(noise, cut, len(rows))
    sound = np.flatnonzero(~doubtful)
    assert (rank[sound] < len(sound)).all()
    assert (np.diff(noise[np.argsort(rank)][len(sound) :]) >= 0).all(), "the least doubtful comes first"
    shown = None if representation is None else representation[sound]
    alone = order_rows(score[sound], labels[sound], rule, 0.5, representation=shown)
    assert rank[sound].tolist() == alone.tolist()
    sizes = np.bincount(labels[sound], minlength=4)
    for kept in range(len(sound) + 1):
        held = np.bincount(labels[sound][rank[sound] < kept], minlength=4)
        assert (held >= kept * sizes // max(1, 2 * len(sound))).all()


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 70), min_size=1, max_size=5), num_dimensions=st.integers(1, 3))
def test_spread_is_an_order_of_every_group(sizes: list[int], num_dimensions: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    generator = np.random.default_rng(len(groups))
    generator.shuffle(groups)
    points = generator.integers(0, 4, (len(groups), num_dimensions)).astype(np.float32)
    places = spread_points(points, groups)
    assert places.tolist() == spread_points(points, groups).tolist()
    for group, size in enumerate(sizes):
        assert sorted(places[groups == group].tolist()) == list(range(size))


@pytest.mark.parametrize("num_taken", [2, 4, 16, 64])
def test_the_first_points_of_a_spread_come_from_parts_of_equal_size(num_taken: int) -> None:
    points = np.random.default_rng(0).exponential(size=(1000, 1)).astype(np.float32)
    places = spread_points(points, np.zeros(1000, dtype=np.int64))
    part = np.argsort(np.argsort(points[:, 0])) * num_taken // 1000
    assert np.bincount(part[places < num_taken], minlength=num_taken).max() <= 2
    assert len(set(part[places < num_taken].tolist())) >= num_taken - 3, "halves of odd sizes shift a part by a row"


def test_coverage_takes_turns_among_the_ranges_of_the_score() -> None:
    score = np.repeat(np.array([0.9, 0.5, 0.1], dtype=np.float32), (900, 80, 20))
    rank = order_rows(score, np.zeros(1000, dtype=np.int64), "coverage")
    for kept, held in ((3, [1, 1, 1]), (60, [20, 20, 20]), (180, [80, 80, 20]), (500, [400, 80, 20])):
        assert [int((score[rank < kept] == value).sum()) for value in np.float32([0.9, 0.5, 0.1])] == held


def build_clusters(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return points of 4 classes in 12 clusters of very different sizes, and how deep each lies in its class."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(1).uniform(-4, 4, (12, 2))
    cluster = generator.choice(12, 4000, p=0.7 ** np.arange(12) / (0.7 ** np.arange(12)).sum())
    points = (centres[cluster] + generator.normal(scale=0.6, size=(4000, 2))).astype(np.float32)
    distance = np.linalg.norm(points[:, None] - points[None, ::20], axis=2)
    labels = cluster % 4
    agreement = (np.argsort(distance, axis=1)[:, :25] * 20)[..., None].squeeze(-1)
    return points, labels, (labels[agreement] == labels[:, None]).mean(axis=1).astype(np.float32)


@pytest.mark.parametrize("keep_fraction", [0.02, 0.05, 0.1, 0.3])
def test_cuts_by_score_collapse_where_coverage_holds(keep_fraction: float) -> None:
    """The nearest kept point's class for new points: easy rows alone, or hard ones alone, do worse than random ones."""
    points, labels, easiness = build_clusters(0)
    tested, answers, _ = build_clusters(1)
    distance = np.linalg.norm(tested[:, None] - points[None], axis=2)

    def measure(rank: NDArray[np.int64]) -> float:
        kept = np.flatnonzero(rank < round(keep_fraction * len(labels)))
        return float((labels[kept][distance[:, kept].argmin(axis=1)] == answers).mean())

    doubt = 1 - easiness  # the share of the neighbours with another label: some clusters overlap
    covered = measure(order_rows(easiness, labels, "coverage", representation=points, noise_score=doubt))
    randomly = np.mean([measure(np.random.default_rng(seed).permutation(len(labels))) for seed in range(10)])
    assert covered > randomly - 0.01
    # "top" without a floor: the floor is there to soften just this
    assert measure(order_rows(easiness, labels, "top", 0.0)) < covered - 0.05
    assert measure(order_rows(-easiness, labels, "top", 0.0)) < covered - 0.05


@pytest.mark.parametrize("rule", RULES)
def test_a_million_rows_take_seconds(rule: str) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 1_000_000)
    score = (generator.random(1_000_000) ** 4 - (labels if rule == "top" else 0)).astype(np.float32)
    representation = generator.normal(size=(1_000_000, 8)).astype(np.float32)
    rank = order_rows(score, labels, rule, 0.3, representation=representation, noise_score=score - score.min() - 9.9)
    held = np.bincount(labels[rank < 500_000], minlength=10)
    assert (held >= np.floor(0.3 * 0.5 * np.bincount(labels))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [0], "best", 0.3), "rule: 'best'; wanted one of top, balanced, coverage"),
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
    ("companions", "message"),
    [
        ({"noise_cut": 1.5}, "noise_cut: 1.5; wanted a number from 0 to 1"),
        ({"noise_score": np.zeros(3)}, "noise_score: shape (3,); wanted (2,)"),
        ({"noise_score": np.array([0.0, np.nan])}, "noise_score: holds a number that is not finite; wanted finite"),
        ({"representation": np.zeros(2)}, "representation: shape (2,); wanted (2, at least 1)"),
        ({"representation": np.zeros((2, 0))}, "representation: shape (2, 0); wanted (2, at least 1)"),
        ({"representation": np.array([[0.0], [np.inf]])}, "representation: holds a number that is not finite"),
    ],
)
def test_bad_companions_are_named(companions: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        order_rows(np.zeros(2, dtype=np.float32), np.array([0, 1]), "coverage", **companions)
    assert str(caught.value).startswith(message)


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
    assert choose_rule("auto", 1.0, even) == ("top", "top: every labelled row is kept")
    assert choose_rule("auto", 0.9996, even) == ("top", "top: over 99% is kept, so only the rows of lowest score go")
    assert choose_rule("auto", 0.0005, even)[1].startswith("coverage: over 99% of the rows go, and")
    rule, reason = choose_rule("auto", 0.8, even)
    assert (rule, reason[:29]) == ("coverage", "coverage: 20% of the rows go,")
    rule, reason = choose_rule("auto", 0.97, even, has_meta_set=False)
    assert (rule, reason[:38]) == ("coverage", "coverage: no trusted examples judged t")
    assert choose_rule("auto", 1.0, even, has_meta_set=False)[0] == "top"
    rare = np.concatenate((even, [4, 4, 4]))
    assert choose_rule("auto", 0.97, rare) == ("balanced", "balanced: the smallest class has only 3 rows")
    assert choose_rule("top", 0.1, rare) == ("top", "top, as asked for")
    assert choose_rule("coverage", 0.5, even) == ("coverage", "coverage, as asked for")
    with pytest.raises(OptionsError, match="rule: 'best'; wanted one of auto, top, balanced, coverage"):
        choose_rule("best", 0.5, even)


def test_the_noise_cut_is_the_one_asked_for_or_follows_from_what_the_score_means() -> None:
    assert choose_noise_cut(0.3, is_calibrated=False) == 0.3
    assert choose_noise_cut(None, is_calibrated=True) == 0.5
    assert choose_noise_cut(None, is_calibrated=False) == 0.9
