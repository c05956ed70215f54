"""Made-up data for the detection of wrong labels: noise without system, noise by a rule, and trusted examples."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sama_core.decisions import Decisions
from sama_core.detection.method import CurationMethod, CurationState
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.types import TensorExamples

CPU = torch.device("cpu")
NUM_CLASSES, NUM_INPUTS = 4, 8
SHORT = CurationOptions(
    epochs=5, batch_size=16, lr=0.01, unroll_steps=1, warmup_steps=2, averaged_checkpoints=2, check_every=5
)


@dataclass(frozen=True)
class Noisy:
    """Examples with some wrong labels, what is true of them, and trusted examples.

    Attributes:
        train: under their given labels.
        truth: (N,) their true labels.
        meta: trusted ones.
    """

    train: TensorExamples
    truth: Tensor
    meta: TensorExamples

    @property
    def wrong(self) -> Tensor:
        """Return which given labels are wrong, bool (N,)."""
        return self.train.labels != self.truth


def draw_points(num_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return points around one centre a class, the last two inputs being noise, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % NUM_CLASSES
    centres = torch.zeros(NUM_CLASSES, NUM_INPUTS)
    centres[:, :NUM_CLASSES] = 2.5 * torch.eye(NUM_CLASSES)
    return centres[labels] + torch.randn(num_rows, NUM_INPUTS, generator=generator), labels


def scatter(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return the labels with this share of them replaced by another class, each as likely."""
    generator = torch.Generator().manual_seed(seed)
    moved = torch.rand(len(labels), generator=generator) < share
    steps = torch.randint(1, NUM_CLASSES, (len(labels),), generator=generator)
    return torch.where(moved, (labels + steps) % NUM_CLASSES, labels)


def follow_rule(inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the labels as a rule has them: wherever an input that has nothing to do with the class is large, the next
    class."""
    return torch.where(inputs[:, -1] > 0.7, (labels + 1) % NUM_CLASSES, labels)


def make_noisy(kind: str = "scattered", num_rows: int = 480, num_trusted: int = 64, share: float = 0.2) -> Noisy:
    """Return noisy examples, ``scattered`` or ``ruled``, with trusted ones that are none of them."""
    inputs, truth = draw_points(num_rows, seed=1)
    given = scatter(truth, share, seed=2) if kind == "scattered" else follow_rule(inputs, truth)
    meta_inputs, meta_truth = draw_points(num_trusted, seed=3)
    meta = TensorExamples(meta_inputs, meta_truth, NUM_CLASSES)
    return Noisy(TensorExamples(inputs, given, NUM_CLASSES), truth, meta)


def trust_rows(noisy: Noisy, rows: Tensor, labels: Tensor | None = None) -> Noisy:
    """Return the same with these training examples as the trusted ones, under ``labels``, by default the true."""
    truth = noisy.truth[rows] if labels is None else labels
    meta = TensorExamples(noisy.train.inputs[rows], truth, NUM_CLASSES)
    meta.train_rows, meta.given_labels = rows, noisy.train.labels[rows]
    return Noisy(noisy.train, noisy.truth, meta)


def make_known(num_rows: int = 96, num_trusted: int = 24, share: float = 0.3) -> Noisy:
    """Return few noisy examples, some of them trusted: what was given for these is known, some of it wrong."""
    noisy = make_noisy(num_rows=num_rows, share=share)
    return trust_rows(noisy, torch.arange(0, num_rows, num_rows // num_trusted))


def make_never_wrong(num_rows: int = 96, num_trusted: int = 24) -> Noisy:
    """Return few noisy examples, some of those with the right label trusted."""
    noisy = make_noisy(num_rows=num_rows, share=0.3)
    return trust_rows(noisy, torch.nonzero(~noisy.wrong).flatten()[:num_trusted])


def make_separate() -> Noisy:
    """Return few noisy examples, and trusted ones beside them without a given label."""
    return make_noisy(num_rows=96, num_trusted=24, share=0.3)


def build_layers(seed: int = 0, width: int = 24) -> nn.Sequential:
    """Return a small network with dropout and BatchNorm."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(NUM_INPUTS, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, NUM_CLASSES)
    )


def begin(method: AbstractMethod[Any], noisy: Noisy) -> Any:
    """Return the state before the first step."""
    return method.init(build_layers(), noisy.train, noisy.meta)


def go_on(method: AbstractMethod[Any], state: Any, num_steps: int | None = None) -> None:
    """Do some steps, or all."""
    while not method.is_done(state) and num_steps != 0:
        method.step(state)
        num_steps = None if num_steps is None else num_steps - 1


def run(noisy: Noisy, options: CurationOptions = SHORT) -> tuple[CurationMethod, CurationState, Decisions]:
    """Curate to the end."""
    method = CurationMethod("sama", options)
    state = begin(method, noisy)
    go_on(method, state)
    return method, state, method.finish(state)


def measure_auroc(values: Any, positive: Any) -> float:
    """Return how often a positive example has the larger value of a pair."""
    values, positive = torch.as_tensor(values).double(), torch.as_tensor(positive)
    above = values[positive][:, None] - values[~positive][None, :]
    return float((above > 0).double().mean() + 0.5 * (above == 0).double().mean())
