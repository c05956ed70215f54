"""Intervals and verdicts: closed forms, coverage by simulation, and words that say no more than the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from service.results.schemas import Comparison
from worker.evaluation.arms import ArmName, ArmPlan
from worker.evaluation.statistics import describe_method, estimate_mean
from worker.evaluation.verdict import compare_arms, write_verdict


def test_with_one_seed_it_is_the_t_interval_over_test_examples() -> None:
    outcomes = np.array([[1.0] * 70 + [0.0] * 30])
    estimate = estimate_mean(outcomes, (0.0, 1.0))
    reach = stats.t.ppf(0.975, 99) * outcomes.std(ddof=1) / 10
    assert estimate.mean == pytest.approx(0.7)
    assert estimate.interval == pytest.approx((0.7 - reach, 0.7 + reach))
    assert "one seed" in describe_method(1)
    assert "one seed" not in describe_method(3)


def test_seeds_that_agree_on_every_example_add_no_certainty() -> None:
    outcomes = np.array([[1.0] * 70 + [0.0] * 30])
    once, thrice = estimate_mean(outcomes, (0.0, 1.0)), estimate_mean(np.repeat(outcomes, 3, axis=0), (0.0, 1.0))
    assert thrice.interval == pytest.approx(once.interval)


def test_seeds_that_differ_as_a_whole_are_the_t_interval_over_seeds() -> None:
    levels = np.array([0.0, 0.5, 1.0])
    outcomes = np.repeat(levels[:, None], 1000, axis=1)
    estimate = estimate_mean(outcomes, (-5.0, 5.0))
    reach = stats.t.ppf(0.975, 2) * levels.std(ddof=1) / np.sqrt(3)
    assert estimate.interval == pytest.approx((0.5 - reach, 0.5 + reach))


def test_where_nothing_differs_the_interval_still_has_a_width() -> None:
    assert estimate_mean(np.ones((3, 60)), (0.0, 1.0)).interval == pytest.approx((0.95, 1.0))
    assert estimate_mean(np.zeros((3, 60)), (-1.0, 1.0)).interval == pytest.approx((-0.05, 0.05))


def test_a_single_test_example_tells_nothing() -> None:
    assert estimate_mean(np.ones((3, 1)), (0.0, 1.0)).interval == (0.0, 1.0)


@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(2, 40)), elements=st.integers(0, 1)))
def test_the_interval_holds_the_mean_and_stays_within_bounds(outcomes: np.ndarray) -> None:
    estimate = estimate_mean(outcomes, (0.0, 1.0))
    low, high = estimate.interval
    assert 0.0 <= low <= estimate.mean + 1e-12
    assert estimate.mean - 1e-12 <= high <= 1.0
    assert high > low


@given(arrays(np.uint8, (3, 20), elements=st.integers(0, 1)), st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_of_examples_does_not_matter(outcomes: np.ndarray, random: object) -> None:
    generator = np.random.default_rng(random.randrange(1000))  # type: ignore[attr-defined]
    shuffled = outcomes[generator.permutation(3)][:, generator.permutation(20)]
    first, second = estimate_mean(outcomes, (0.0, 1.0)), estimate_mean(shuffled, (0.0, 1.0))
    assert first.interval == pytest.approx(second.interval)


@pytest.mark.parametrize(("seed_spread", "example_spread"), [(0.3, 1.5), (1.0, 1.0), (0.0, 2.0)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seed_spread: float, example_spread: float) -> None:
    generator = np.random.default_rng(7)
    num_trials, num_seeds, num_examples = 1000, 3, 80
    covered = 0
    for _ in range(num_trials):
        seeds = generator.normal(0, seed_spread, (num_seeds, 1))
        examples = generator.normal(0, example_spread, (1, num_examples))
        outcomes = seeds + examples + generator.normal(0, 1, (num_seeds, num_examples))
        low, high = estimate_mean(outcomes, (-100.0, 100.0)).interval
        covered += low <= 0.0 <= high
    assert 0.93 <= covered / num_trials <= 0.99


def make_comparison(arm: str, low: float, high: float) -> Comparison:
    return Comparison(arm=arm, difference=(low + high) / 2, interval=(low, high))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "Curated is better than random: +2.0 points of test accuracy (95% interval +1.0 to +3.0)."),
        (-0.01, 0.03, "Curated is no better than random: +1.0 points of test accuracy (95% interval -1.0 to +3.0)."),
        (-0.03, -0.01, "Curated is worse than random: -2.0 points of test accuracy (95% interval -3.0 to -1.0)."),
    ],
)
def test_the_verdict_against_random(low: float, high: float, words: str) -> None:
    assert write_verdict([make_comparison("random", low, high)]) == words


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "better than training on everything, +2.0"),
        (-0.01, 0.01, "no measurable difference from training on everything, +0.0"),
        (-0.03, -0.01, "worse than training on everything, -2.0"),
    ],
)
def test_the_verdict_against_the_full_data(low: float, high: float, words: str) -> None:
    verdict = write_verdict([make_comparison("random", 0.01, 0.02), make_comparison("full", low, high)])
    assert f"Against the full data: {words}" in verdict


def test_without_a_control_there_is_nothing_to_say() -> None:
    assert compare_arms({"curated": np.ones((1, 5))}) == []
    assert compare_arms({"full": np.ones((1, 5)), "random": np.ones((1, 5))}) == []
    assert write_verdict([]).startswith("Nothing to compare")


def test_differences_are_paired_by_seed_and_example() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random((1, 200)) < 0.5
    full = np.repeat(hard, 3, axis=0)
    curated = full.copy()
    curated[:, np.flatnonzero(~hard[0])[:10]] = True
    comparison = compare_arms({"curated": curated, "full": full})[0]
    assert comparison.difference == pytest.approx(0.05)
    assert comparison.interval[0] > 0.01, "pairing takes away the spread of easy and hard examples"


ARM_NAMES: tuple[ArmName, ...] = ("full", "curated", "random")


@pytest.mark.parametrize("weighted", [True, False])
def test_random_has_the_size_and_the_weights_of_curated(weighted: bool) -> None:
    kept = np.arange(50) % 3 > 0
    weight = np.linspace(0.5, 1.5, 50).astype(np.float32) if weighted else None
    plan = ArmPlan(kept, weight)
    full, curated, random = (plan.make(name, 1) for name in ARM_NAMES)
    assert len(full.rows) == 50
    assert full.weights is None
    assert curated.rows.tolist() == np.flatnonzero(kept).tolist()
    assert len(random.rows) == len(set(random.rows.tolist())) == len(curated.rows)
    assert random.rows.tolist() != curated.rows.tolist()
    if weighted:
        assert random.weights is not None
        assert curated.weights is not None
        assert sorted(random.weights[random.rows]) == sorted(curated.weights[curated.rows])
    else:
        assert random.weights is curated.weights is None


def test_random_differs_by_seed_and_is_the_same_for_one() -> None:
    plan = ArmPlan(np.arange(50) < 25, None)
    first, again, other = plan.make("random", 1), plan.make("random", 1), plan.make("random", 2)
    assert first.rows.tolist() == again.rows.tolist()
    assert first.rows.tolist() != other.rows.tolist()
