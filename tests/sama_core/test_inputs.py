"""What comes in at the public door: options, examples, data sets, the sampler's weights."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sama_core.curate import curate
from sama_core.datasets import DatasetExamples, adapt_dataset
from sama_core.errors import ExamplesError, OptionsError
from sama_core.options import CurationOptions
from sama_core.sampler import WeightedSampler
from sama_core.types import TensorExamples, check_examples
from tests.sama_core.problems import build_examples, build_small_network


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: 0; wanted a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs: 1.5; wanted a whole number of at least 1"),
        ({"batch_size": True}, "batch_size: True; wanted a whole number of at least 1"),
        ({"seed": -1}, "seed: -1; wanted a whole number of at least 0"),
        ({"unroll_steps": 0}, "unroll_steps: 0; wanted a whole number of at least 1"),
        ({"warmup_steps": -1}, "warmup_steps: -1; wanted a whole number of at least 0"),
        ({"meta_batch_size": 0}, "meta_batch_size: 0; wanted a whole number of at least 1"),
        ({"lr": 0.0}, "lr: 0.0; wanted a finite number above 0"),
        ({"meta_lr": float("inf")}, "meta_lr: inf; wanted a finite number above 0"),
        ({"perturbation_scale": -1.0}, "perturbation_scale: -1.0; wanted a finite number above 0"),
        ({"weight_decay": -0.1}, "weight_decay: -0.1; wanted a finite number, 0 or more"),
        ({"momentum": 1.0}, "momentum: 1.0; wanted a number from 0 to below 1"),
        ({"ema_decay": 1.0}, "ema_decay: 1.0; wanted a number from 0 to below 1"),
        (
            {"optimizer": "lion"},
            "optimizer: 'lion'; wanted one of sgd, adam, adamw, nadam, radam, rmsprop, adagrad, adamax, adadelta",
        ),
        ({"learned": "labels"}, "learned: 'labels'; wanted one of network, logits, sources, corrector"),
        ({"route": "magic"}, "route: 'magic'; wanted one of auto, ghost, finite-difference, forward-mode"),
        ({"clip_norm": 0.0}, "clip_norm: 0.0; wanted a finite number above 0"),
        ({"damping": -1.0}, "damping: -1.0; wanted a finite number, 0 or more"),
        ({"nudge": 0.0}, "nudge: 0.0; wanted a finite number above 0"),
        ({"accumulate": 0}, "accumulate: 0; wanted a whole number of at least 1"),
        ({"precision": "int8"}, "precision: 'int8'; wanted one of float32, bfloat16, float16"),
        (
            {"features": ("loss", "loss")},
            "features: ('loss', 'loss'); wanted different names out of loss, margin, disagreement, average_p_given, "
            "spread, forgotten, trusted_p_given, trusted_margin, votes_p_given, votes_margin, neighbours",
        ),
        ({"schedule": "linear"}, "schedule: 'linear'; wanted one of constant, cosine"),
    ],
)
def test_bad_options_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        CurationOptions(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([], None, "examples: 0 examples; wanted at least 1"),
        ([0, 0], None, "examples.num_classes: 1; wanted at least 2 classes"),
        ([0, -1], 2, "examples.labels: row 1 has label -1; wanted 0..1"),
        ([0, 1, 5], 3, "examples.labels: row 2 has label 5; wanted 0..2"),
    ],
)
def test_bad_labels_are_named(labels: list[int], num_classes: int | None, message: str) -> None:
    with pytest.raises(ExamplesError) as caught:
        TensorExamples(torch.zeros(len(labels), 1), torch.tensor(labels), num_classes)
    assert str(caught.value) == message


def test_unequal_lengths_are_named() -> None:
    with pytest.raises(ExamplesError, match="inputs: 3 rows but 2 labels; the two must be equal"):
        TensorExamples((torch.zeros(2), torch.zeros(3)), torch.tensor([0, 1]))


def test_labels_of_another_kind_are_refused() -> None:
    examples = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))
    examples.labels = torch.tensor([0.0, 1.0])
    with pytest.raises(ExamplesError, match=r"train\.labels: dtype torch\.float32, shape \(2,\); wanted int64"):
        check_examples(examples, "train")


def test_inputs_keep_their_form() -> None:
    rows = torch.tensor([2, 0])
    plane = torch.arange(6.0).view(3, 2)
    named = TensorExamples({"x": plane, "mask": plane > 2}, torch.tensor([0, 1, 0])).fetch(rows)
    assert isinstance(named, dict)
    assert named["x"].tolist() == [[4, 5], [0, 1]]
    several = TensorExamples((plane, plane), torch.tensor([0, 1, 0])).fetch(rows)
    assert isinstance(several, tuple)
    assert len(several) == 2


def test_data_set_of_pairs_gives_what_its_tensors_give() -> None:
    plane = build_examples()
    options = CurationOptions(epochs=2, batch_size=8)
    pairs = [(plane.inputs[row], int(plane.labels[row])) for row in range(48)]
    as_tensors = TensorDataset(plane.inputs, plane.labels)
    results = [curate(data, build_small_network(), options) for data in (plane, pairs, as_tensors)]
    assert len({decisions.noise_score.tobytes() for decisions in results}) == 1


def test_data_set_of_several_inputs_is_collated() -> None:
    examples = DatasetExamples([((torch.zeros(1), torch.ones(2)), 0), ((torch.ones(1), torch.ones(2)), 1)])
    left, right = examples.fetch(torch.tensor([1, 0]))
    assert (left.tolist(), right.shape) == ([[1.0], [0.0]], (2, 2))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(0.0, 0), 3.0], "dataset: row 1 is float; wanted a pair (input, label)"),
        ([(0.0, 0), (0.0, 0.5)], "dataset: row 1 has label 0.5; wanted a whole number"),
        ([(0.0, 0, 1)], "dataset: row 0 is tuple; wanted a pair (input, label)"),
    ],
)
def test_bad_items_are_named(items: list[Any], message: str) -> None:
    with pytest.raises(ExamplesError) as caught:
        adapt_dataset(items)
    assert str(caught.value) == message


def test_sampler_draws_in_proportion() -> None:
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    counts = Counter(WeightedSampler(weights, 80_000, seed=3))
    assert counts[0] == 0
    for row in (1, 2, 3):
        assert counts[row] / 80_000 == pytest.approx(weights[row] / 8, abs=0.006)


def test_sampler_is_exact_past_two_to_the_twenty_four_rows() -> None:
    weights = np.zeros(2**24 + 10)
    weights[-1] = 1e-3
    weights[2**24 + 3] = 1e-3
    drawn = Counter(WeightedSampler(weights, 1000))
    assert set(drawn) == {2**24 + 3, 2**24 + 9}
    assert drawn[2**24 + 3] == pytest.approx(500, abs=80)


def test_ranks_share_one_stream() -> None:
    weights = np.ones(50)
    whole = list(WeightedSampler(weights, 40, seed=1))
    parts = [list(WeightedSampler(weights, 40, seed=1, rank=rank, num_ranks=2)) for rank in (0, 1)]
    assert [row for pair in zip(*parts, strict=True) for row in pair] == whole


def test_epochs_differ_and_repeat() -> None:
    sampler = WeightedSampler(np.ones(100))
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert len(sampler) == 100


def test_sampler_serves_a_loader() -> None:
    pairs = TensorDataset(torch.arange(4))
    loader = DataLoader(pairs, batch_size=2, sampler=WeightedSampler(np.array([0.0, 0.0, 1.0, 0.0]), 6))
    assert [batch.tolist() for (batch,) in loader] == [[2, 2]] * 3


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([1.0, -1.0], {}, "weights: negative, not finite or not one-dimensional; wanted (N,) of 0 or more"),
        ([1.0, np.nan], {}, "weights: negative, not finite or not one-dimensional; wanted (N,) of 0 or more"),
        ([[1.0]], {}, "weights: negative, not finite or not one-dimensional; wanted (N,) of 0 or more"),
        ([0.0, 0.0], {}, "weights: all 2 are 0; wanted at least one above 0"),
        ([1.0], {"rank": 2, "num_ranks": 2}, "rank: 2; wanted a number from 0 to 1"),
        ([1.0], {"rank": 0.5}, "rank: 0.5; wanted a number from 0 to 0"),
        ([1.0], {"num_ranks": 0}, "num_ranks: 0; wanted a whole number of at least 1"),
        ([1.0], {"num_ranks": 1.5}, "num_ranks: 1.5; wanted a whole number of at least 1"),
        ([1.0], {"num_draws": 1, "num_ranks": 2}, "num_draws: 1; wanted a whole number of at least 2, one a rank"),
        ([1.0], {"num_draws": -3}, "num_draws: -3; wanted a whole number of at least 1, one a rank"),
        ([1.0], {"num_draws": 2.5}, "num_draws: 2.5; wanted a whole number of at least 1, one a rank"),
        ([1.0], {"num_draws": True}, "num_draws: True; wanted a whole number of at least 1, one a rank"),
    ],
)
def test_bad_sampler_arguments_are_named(weights: list[float], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        WeightedSampler(np.array(weights), **options)
    assert str(caught.value) == message
