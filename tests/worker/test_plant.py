"""Planted errors: which rows, which labels, and how well a score finds them."""

import numpy as np
import pytest

from service.jobs.document import PlantSpec
from worker.evaluation.detection import count_reliability, measure_precision, summarise_detection
from worker.evaluation.plant import measure_confusion, move_votes, plant_errors

LABELS = np.arange(200, dtype=np.int64) % 4
NOBODY = np.zeros(200, dtype=np.bool_)


def test_a_seeded_share_gets_another_label_and_trusted_rows_keep_theirs() -> None:
    trusted = np.arange(200) < 60
    spec = PlantSpec(rate=0.1, kind="uniform")
    planting = plant_errors(LABELS, trusted, spec, num_classes=4, seed=0)
    again, other = (plant_errors(LABELS, trusted, spec, num_classes=4, seed=seed) for seed in (0, 1))
    assert planting is not None
    assert again is not None
    assert other is not None
    assert planting.is_planted.sum() == 14
    assert not planting.is_planted[trusted].any()
    assert ((planting.labels != LABELS) == planting.is_planted).all()
    assert planting.labels.min() >= 0
    assert planting.labels.max() < 4
    assert (planting.is_judged == ~trusted).all()
    assert planting.labels.tolist() == again.labels.tolist()
    assert planting.is_planted.tolist() != other.is_planted.tolist()


def test_confusion_plants_the_errors_that_the_data_seems_to_make() -> None:
    probabilities = np.full((200, 4), 0.0, dtype=np.float32)
    probabilities[np.arange(200), LABELS] = 0.9
    probabilities[np.arange(200), (LABELS + 1) % 4] = 0.1
    planting = plant_errors(
        LABELS, NOBODY, PlantSpec(rate=0.5, kind="confusion"), num_classes=4, seed=0, probabilities=probabilities
    )
    assert planting is not None
    where = planting.is_planted
    # given k where k + 1 may be right: a row of class c is then given as c - 1
    assert ((planting.labels[where] - LABELS[where]) % 4 == 3).all()


def test_a_class_that_is_never_mistaken_is_mistaken_for_any_other() -> None:
    confusion = measure_confusion(np.array([0, 1, 2]), np.eye(3, dtype=np.float32))
    assert confusion.tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def test_there_must_be_rows_to_plant_errors_in() -> None:
    trusted = np.arange(200) > 0
    assert plant_errors(LABELS, trusted, PlantSpec(), num_classes=4, seed=0) is None


def test_planted_rows_take_over_the_votes_of_their_new_class() -> None:
    votes = np.stack([LABELS, np.where(LABELS == 2, -1, LABELS)], axis=1)
    planting = plant_errors(LABELS, NOBODY, PlantSpec(rate=0.2), num_classes=4, seed=0)
    assert planting is not None
    moved = move_votes(votes, planting, seed=0)
    assert (moved[:, 0] == planting.labels).all()
    assert (moved[~planting.is_planted] == votes[~planting.is_planted]).all()
    assert (votes[:, 0] == LABELS).all()


def test_detection_is_told_by_three_numbers() -> None:
    is_planted = np.array([True, False, True, False, False])
    perfect = summarise_detection("x", np.array([0.9, 0.2, 0.8, 0.1, 0.0]), is_planted)
    assert (perfect.auroc, perfect.average_precision, perfect.precision) == (1.0, 1.0, 1.0)
    wrong = summarise_detection("x", np.array([0.0, 0.2, 0.1, 0.9, 0.8]), is_planted)
    assert (wrong.auroc, wrong.precision) == (0.0, 0.0)
    finer = summarise_detection("x", np.ones(5), is_planted, doubt=np.array([9.0, 2.0, 8.0, 1.0, 0.0]))
    assert finer.auroc == 1.0, "saturated noise scores do not hide the order"


def test_precision_among_equal_doubts_is_that_of_a_fair_draw() -> None:
    is_planted = np.array([True, False, False, False])
    assert measure_precision(np.zeros(4), is_planted) == pytest.approx(0.25)


def test_reliability_counts_every_row_once() -> None:
    generator = np.random.default_rng(0)
    noise = generator.random(5000)
    bins = count_reliability(noise, generator.random(5000) < noise)
    assert sum(found.count for found in bins) == 5000
    for found in bins:
        assert found.mean_noise_score is not None
        assert found.share_planted == pytest.approx(found.mean_noise_score, abs=0.08)
    assert count_reliability(np.array([0.5]), np.array([True]))[0].share_planted is None
