"""The arms: which rows, labels and weights each one trains on."""

from dataclasses import replace

import numpy as np
import pytest

from worker.evaluation.arms import ArmPlan, Trusted

NUM_ROWS, NUM_KEPT = 50, 30
GIVEN = np.arange(NUM_ROWS, dtype=np.int64) % 3
# Row 3 is trusted and kept, row 40 trusted and dropped; the third trusted row is no curated one.
TRUSTED = Trusted(np.array([2, 2, 1]), np.array([3, 40, -1]))


def make_plan(*, weighted: bool = True, trusted: Trusted | None = None) -> ArmPlan:
    return ArmPlan(
        given=GIVEN,
        rank=np.arange(NUM_ROWS, dtype=np.int64),
        num_kept=NUM_KEPT,
        curated=GIVEN,
        weight=np.linspace(0.5, 1.5, NUM_ROWS).astype(np.float32) if weighted else None,
        trusted=trusted,
        loss_score=np.arange(NUM_ROWS, dtype=np.float64),
    )


@pytest.mark.parametrize("weighted", [True, False])
def test_random_has_the_size_and_the_weights_of_curated(weighted: bool) -> None:
    plan = make_plan(weighted=weighted)
    full, curated, random = plan.make("full", 1), plan.make("curated", 1), plan.make("random", 1)
    assert len(full.rows) == NUM_ROWS
    assert full.weights is None
    assert curated.rows.tolist() == list(range(NUM_KEPT))
    assert len(random.rows) == len(set(random.rows.tolist())) == NUM_KEPT
    assert random.rows.tolist() != curated.rows.tolist()
    if weighted:
        assert random.weights is not None
        assert curated.weights is not None
        assert sorted(random.weights[random.rows]) == sorted(curated.weights[curated.rows])
    else:
        assert random.weights is curated.weights is None


def test_random_differs_by_seed_and_is_nested_in_larger_ones() -> None:
    plan = make_plan(weighted=False)
    first, again, other = plan.make("random", 1), plan.make("random", 1), plan.make("random", 2)
    assert first.rows.tolist() == again.rows.tolist()
    assert first.rows.tolist() != other.rows.tolist()
    assert set(plan.make("random", 1, num_kept=10).rows) < set(first.rows)


def test_the_loss_arm_takes_the_rows_of_lowest_loss_and_gives_these_the_largest_weights() -> None:
    plan = make_plan()
    arm, curated = plan.make("loss", 1), plan.make("curated", 1)
    assert arm.rows.tolist() == list(range(NUM_ROWS - NUM_KEPT, NUM_ROWS))
    assert arm.weights is not None
    assert curated.weights is not None
    assert (np.diff(arm.weights[arm.rows]) > 0).all()
    assert sorted(arm.weights[arm.rows]) == sorted(curated.weights[curated.rows])
    assert arm.trained_on.startswith("the 30 rows of the lowest loss")
    assert replace(plan, weight=None).make("loss", 1).weights is None


def test_another_size_takes_the_place_of_the_jobs_own() -> None:
    plan = make_plan(weighted=False)
    assert plan.make("curated", 1, num_kept=7).rows.tolist() == list(range(7))
    assert len(plan.make("random", 1, num_kept=7).rows) == 7


def test_the_meta_arm_trains_on_the_trusted_rows_alone() -> None:
    arm = make_plan(trusted=TRUSTED).make("meta", 1)
    assert arm.rows.tolist() == [50, 51, 52]
    assert arm.labels[arm.rows].tolist() == [2, 2, 1]
    assert arm.weights is None


def test_a_trusted_row_among_the_curated_ones_is_there_once_under_its_trusted_label() -> None:
    arm = make_plan(trusted=TRUSTED).make("full-and-meta", 1)
    assert arm.rows.tolist() == [*range(NUM_ROWS), 52]
    assert (arm.labels[3], arm.labels[40], arm.labels[52]) == (2, 2, 1)
    assert arm.labels[4] == GIVEN[4]
    assert GIVEN[3] == 0, "the plan's own labels stay as they are"
    assert make_plan(trusted=TRUSTED).make("full", 1).labels[3] == 0


def test_curated_and_meta_is_the_kept_rows_by_weight_and_each_trusted_row_like_an_average_one() -> None:
    plan = make_plan(trusted=TRUSTED)
    arm, curated = plan.make("curated-and-meta", 1), plan.make("curated", 1)
    assert arm.rows.tolist() == [*range(NUM_KEPT), 40, 52]
    assert arm.weights is not None
    assert curated.weights is not None
    average = curated.weights[curated.rows].mean()
    assert arm.weights[[3, 40, 52]].tolist() == pytest.approx([average] * 3)
    assert arm.weights[4] == curated.weights[4]
    assert (arm.labels[3], arm.labels[40]) == (2, 2)
    assert replace(plan, weight=None).make("curated-and-meta", 1).weights is None


def test_soft_labels_are_trained_on_alike_and_trusted_ones_are_certain() -> None:
    soft = np.full((NUM_ROWS, 3), [0.5, 0.3, 0.2], dtype=np.float32)
    plan = replace(make_plan(weighted=False, trusted=TRUSTED), soft=soft)
    curated, joined = plan.make("curated", 1), plan.make("curated-and-meta", 1)
    assert curated.weights is joined.weights is None
    assert curated.trained_on == "the 30 kept rows, with their soft labels, each counting alike"
    assert curated.soft is not None
    assert joined.soft is not None
    assert curated.soft.shape == joined.soft.shape == (NUM_ROWS + 3, 3)
    assert (curated.soft[:NUM_ROWS] == soft).all()
    assert joined.soft[[3, 40, 52]].tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert (joined.soft[4] == soft[4]).all()
    assert (soft == soft[0]).all(), "the plan's own stay as they are"
    assert all(plan.make(name, 1).soft is None for name in ("full", "random", "loss", "meta", "full-and-meta"))


def test_rows_of_weight_zero_are_counted_and_do_not_lower_the_weight_of_trusted_ones() -> None:
    weight = np.ones(NUM_ROWS, dtype=np.float32)
    weight[:6] = 0
    plan = replace(make_plan(trusted=TRUSTED), weight=weight)
    curated, joined = plan.make("curated", 1), plan.make("curated-and-meta", 1)
    assert curated.trained_on == "the 30 kept rows, with their learned weights (6 of them 0: in no batch)"
    assert joined.weights is not None
    assert joined.weights[[40, 52]].tolist() == [1.0, 1.0]


def test_curated_arms_train_on_corrected_labels_and_on_rows_labelled_for_the_first_time() -> None:
    corrected = np.concatenate([GIVEN, [1, 0]])
    corrected[5] = (GIVEN[5] + 1) % 3
    plan = ArmPlan(
        given=GIVEN,
        rank=np.concatenate([np.arange(NUM_ROWS), [NUM_ROWS, -1]]),
        num_kept=NUM_ROWS + 1,
        curated=corrected,
        weight=np.ones(NUM_ROWS + 2, dtype=np.float32),
        trusted=TRUSTED,
    )
    curated = plan.make("curated", 1)
    assert curated.rows.tolist() == list(range(NUM_ROWS + 1)), "the row that got no label is left out"
    assert curated.labels[5] == corrected[5]
    assert curated.labels[NUM_ROWS] == 1
    assert "51 kept rows (1 with a corrected label and 1 with their first label)" in curated.trained_on
    full, random = plan.make("full", 1), plan.make("random", 1)
    assert full.labels[5] == random.labels[5] == GIVEN[5]
    assert len(full.rows) == len(random.rows) == NUM_ROWS, "no more rows have a given label"
    assert plan.make("meta", 1).rows.tolist() == [52, 53, 54]
    assert plan.make("curated-and-meta", 1).labels[3] == 2, "a trusted label counts more than a corrected one"
