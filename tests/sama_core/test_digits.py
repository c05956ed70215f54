"""Planted label noise is found on real data: scikit-learn's handwritten digits."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from sama_core.curate import curate
from sama_core.options import CurationOptions
from sama_core.selection import num_kept, order_rows
from sama_core.training import accuracy, fit, predict
from sama_core.types import TensorExamples

NOISE_RATE, NUM_META, NUM_TEST = 0.3, 100, 397
SEEDS = (0, 1, 2)


@dataclass
class Digits:
    """1,300 training digits, 30% of their labels replaced by a random other class; trusted and test digits."""

    train: TensorExamples
    meta: TensorExamples
    test: TensorExamples
    gold: Tensor

    @property
    def wrong(self) -> NDArray[np.bool_]:
        return (self.train.labels != self.gold).numpy()


def load(seed: int) -> Digits:
    pixels, classes = load_digits(return_X_y=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pixels), generator=generator)
    images = torch.tensor(pixels, dtype=torch.float32)[order].view(-1, 1, 8, 8) / 16 - 0.5
    labels = torch.tensor(classes)[order]
    test, meta, train = torch.tensor_split(torch.arange(len(labels)), (NUM_TEST, NUM_TEST + NUM_META))
    moved = torch.rand(len(train), generator=generator) < NOISE_RATE
    other = (labels[train] + torch.randint(1, 10, (len(train),), generator=generator)) % 10
    return Digits(
        TensorExamples(images[train], torch.where(moved, other, labels[train]), 10),
        TensorExamples(images[meta], labels[meta], 10),
        TensorExamples(images[test], labels[test], 10),
        labels[train],
    )


def build_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@pytest.mark.slow
def test_planted_errors_are_found_and_pruning_beats_random() -> None:
    found, pruned, random = [], [], []
    for seed in SEEDS:
        digits, options = load(seed), CurationOptions(seed=seed, epochs=15)
        decisions = curate(digits.train, build_network(seed), options, digits.meta)
        found.append(float(roc_auc_score(digits.wrong, decisions.noise_score)))
        assert float(roc_auc_score(digits.wrong, -decisions.weight)) > 0.95

        num_rows = len(digits.train)
        kept = num_kept(0.7, num_rows, num_rows)
        rank = order_rows(decisions.score, digits.train.labels.numpy(), "top", 0.3)
        chance = np.random.default_rng(seed).permutation(num_rows)
        for accuracies, order in ((pruned, rank), (random, chance)):
            rows = torch.from_numpy(np.flatnonzero(order < kept))
            network, _ = fit(build_network(seed), digits.train, options, rows=rows)
            accuracies.append(accuracy(predict(network, digits.test), digits.test.labels))
    assert min(found) > 0.95, found
    assert np.mean(pruned) > np.mean(random) + 0.02, (pruned, random)


@pytest.mark.slow
def test_noise_is_found_without_a_meta_set_too() -> None:
    digits = load(0)
    decisions = curate(digits.train, build_network(0), CurationOptions(epochs=15, unroll_steps=5))
    assert roc_auc_score(digits.wrong, decisions.noise_score) > 0.95


@pytest.mark.slow
def test_suggested_labels_mend_most_errors() -> None:
    digits = load(3)
    decisions = curate(digits.train, build_network(3), CurationOptions(epochs=15, unroll_steps=5), digits.meta)
    mended = decisions.suggested == digits.gold.numpy()
    assert mended[digits.wrong].mean() > 0.9
    assert mended[~digits.wrong].mean() > 0.97
