"""Intervals: closed forms, coverage by simulation, and the bootstrap beside them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from worker.evaluation.bootstrap import bootstrap_mean
from worker.evaluation.statistics import describe_method, estimate_mean


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


def test_the_bootstrap_of_one_seed_is_that_of_the_examples() -> None:
    outcomes = np.array([[1.0] * 700 + [0.0] * 300])
    low, high = bootstrap_mean(outcomes, seed=0)
    reach = 1.96 * outcomes.std() / np.sqrt(1000)
    assert (low, high) == pytest.approx((0.7 - reach, 0.7 + reach), abs=0.003)


def test_the_bootstrap_is_the_same_for_the_same_seed_and_paired() -> None:
    generator = np.random.default_rng(0)
    hard = np.repeat(generator.random((1, 400)) < 0.5, 3, axis=0)
    better = hard.copy()
    better[:, np.flatnonzero(~hard[0])[:20]] = True
    difference = better.astype(float) - hard.astype(float)
    assert bootstrap_mean(difference, seed=1) == bootstrap_mean(difference, seed=1)
    low, high = bootstrap_mean(difference, seed=1)
    assert 0.02 < low < 0.05 < high < 0.08, "pairing takes away the spread of easy and hard examples"


def test_the_bootstrap_of_grouped_examples_is_that_of_single_ones() -> None:
    generator = np.random.default_rng(3)
    outcomes = (generator.random((3, 200)) < 0.8).astype(float)
    drawn = np.random.default_rng(9)
    means = []
    for _ in range(4000):
        seeds, examples = drawn.integers(0, 3, 3), drawn.integers(0, 200, 200)
        means.append(outcomes[seeds][:, examples].mean())
    assert bootstrap_mean(outcomes, seed=0) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.005)


def test_where_seeds_differ_as_a_whole_the_bootstrap_is_too_narrow_and_the_shown_interval_is_not() -> None:
    generator = np.random.default_rng(7)
    covered, drawn_covered, num_trials = 0, 0, 100
    for _ in range(num_trials):
        outcomes = generator.normal(0, 1.0, (3, 1)) + generator.normal(0, 0.3, (3, 20))
        low, high = estimate_mean(outcomes, (-100.0, 100.0)).interval
        drawn_low, drawn_high = bootstrap_mean(outcomes, seed=0)
        covered += low <= 0.0 <= high
        drawn_covered += drawn_low <= 0.0 <= drawn_high
    assert covered >= 88
    assert drawn_covered <= 85
