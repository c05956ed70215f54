"""The pruning scores: their closed forms on scripted trainings, where they stop, and what they find."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from sama_core.curate import build_method, curate
from sama_core.errors import NonFiniteError, OptionsError
from sama_core.options import CurationOptions
from sama_core.scores.gradient_norms import (
    BAGS,
    ONE_BY_ONE,
    VECTORISED,
    choose_gradient_route,
    measure_gradient_norms,
)
from sama_core.types import Inputs
from tests.sama_core.detection_scene import measure_auroc
from tests.sama_core.problems import build_examples, build_small_network
from worker.models.bag import BagClassifier
from worker.models.convolutions import build_cnn

CPU = torch.device("cpu")


def replay(name: str, given: list[list[float]], num_epochs: int) -> tuple[Tensor, Tensor]:
    """Return scores and noise scores of a training that showed these probabilities of label 0, epoch by epoch."""
    method = build_method(name, CurationOptions(epochs=num_epochs))
    num_examples = len(given[0])
    memory = method.allocate(num_examples, CPU)
    counted = method.list_epochs(num_epochs)
    for epoch, shares in enumerate(given):
        if epoch in counted:
            first_N = torch.tensor(shares, dtype=torch.float64)
            logits = torch.stack([first_N.log(), (1 - first_N).log()], dim=1)
            rows, labels = torch.arange(num_examples), torch.zeros(num_examples, dtype=torch.int64)
            method.remember(memory, rows, logits, labels, epoch - counted.start)
    return method.judge(memory)


def test_el2n_is_the_mean_error_norm_of_the_early_epochs() -> None:
    scores, noise = replay("el2n", [[0.5, 0.5], [0.9, 0.2], [0.5, 0.5], [0.5, 0.5]], num_epochs=4)
    # with two classes the norm is sqrt(2) (1 - p); of four epochs the second alone counts
    assert noise.tolist() == pytest.approx([0.1, 0.8], abs=1e-6)
    assert scores.tolist() == pytest.approx([0.1 * math.sqrt(2), 0.8 * math.sqrt(2)], abs=1e-6)


def test_forgetting_counts_falls_from_right_to_wrong() -> None:
    right, wrong = 0.9, 0.1
    columns = {
        "never learned": [wrong, wrong, wrong, wrong, wrong],
        "never forgotten": [wrong, right, right, right, right],
        "forgotten twice": [right, wrong, right, wrong, right],
        "forgotten and not learned again": [right, wrong, wrong, wrong, wrong],
    }
    scores, noise = replay("forgetting", [list(epoch) for epoch in zip(*columns.values(), strict=True)], num_epochs=5)
    assert scores.tolist() == [5.0, 0.0, 2.0, 1.0]
    assert noise.tolist() == [1.0, 0.0, 0.4, 0.2]


def test_dual_is_the_mean_over_windows_of_difficulty_times_deviation() -> None:
    epochs = 9  # windows of three
    generator = np.random.default_rng(0)
    given = generator.uniform(0.05, 0.95, (epochs, 4))
    scores, noise = replay("dual", given.tolist(), epochs)
    windows = np.stack([given[start : start + 3] for start in range(epochs - 2)])
    wanted = ((1 - windows.mean(1)) * windows.std(1, ddof=1)).mean(0)
    assert scores.numpy() == pytest.approx(wanted, abs=1e-6)
    assert noise.tolist() == scores.tolist()


@pytest.mark.parametrize(
    ("num_epochs", "window", "last"), [(2, 2, 2), (10, 3, 10), (20, 6, 20), (30, 10, 30), (200, 10, 30)]
)
def test_dual_stops_after_thirty_epochs(num_epochs: int, window: int, last: int) -> None:
    method = build_method("dual", CurationOptions(epochs=num_epochs))
    assert (method.window, method.list_epochs(num_epochs)) == (window, range(last))


def test_dual_refuses_a_single_epoch() -> None:
    with pytest.raises(OptionsError) as caught:
        build_method("dual", CurationOptions(epochs=1))
    assert str(caught.value) == "epochs: 1; wanted at least 2, since dual sees how probabilities change"


def test_gradient_norm_of_a_linear_map_has_a_closed_form() -> None:
    examples = build_examples(12)
    network = nn.Linear(2, 3)
    errors = network(examples.inputs).softmax(1) - one_hot(examples.labels, 3)
    wanted = errors.norm(dim=1) * (examples.inputs.square().sum(1) + 1).sqrt()
    for route in (VECTORISED, ONE_BY_ONE):
        norms = measure_gradient_norms(network, examples.inputs, examples.labels, route)
        assert torch.allclose(norms, wanted, rtol=1e-5)


class Choosy(nn.Module):
    """Looks at its data to decide what to do, which cannot be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs if bool(inputs.sum() > 0) else -outputs


class Bags(nn.Module):
    """Two bags of embeddings without weights, one of them of what is not trained.

    tied: the table is the last layer, too; mean: a bag is no sum; twice: a bag is asked two times.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.EmbeddingBag(9, 3, mode="mean" if kind == "mean" else "sum", padding_idx=2)
        self.fixed = nn.EmbeddingBag(9, 3, mode="sum").requires_grad_(requires_grad=False)
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = self.first(inputs) + self.fixed(inputs) + (self.first(inputs) if self.kind == "twice" else 0.0)
        outputs: Tensor = self.layer(seen)
        return outputs @ self.first.weight[:3] if self.kind == "tied" else outputs


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = self.layer(inputs["x"] * inputs["scale"])
        return outputs


def draw_scene(kind: str) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    if kind == "text":
        return BagClassifier(20, 3, width=4), (torch.randint(0, 20, (5, 6)), torch.rand(5, 6))
    if kind in {"bags", "tied", "mean", "twice"}:
        return Bags(kind), torch.randint(0, 9, (5, 7))
    if kind == "images":
        return build_cnn((3, 8, 8), 3), torch.randn(5, 3, 8, 8)
    if kind == "choosy":
        return Choosy(), torch.randn(5, 2)
    if kind == "named":
        return Named(), {"x": torch.randn(5, 2), "scale": torch.rand(5, 1)}
    return build_small_network(), torch.randn(5, 2)


@pytest.mark.parametrize("kind", ["plane", "images", "text", "bags", "tied", "mean", "twice", "named", "choosy"])
def test_gradient_norms_are_those_of_single_examples(kind: str) -> None:
    network, inputs = draw_scene(kind)
    labels = torch.tensor([0, 1, 2, 1, 0])
    route = choose_gradient_route(network, inputs, labels)
    if kind in {"plane", "images", "named"}:
        assert route == VECTORISED
    if kind in {"text", "bags"}:
        assert route == BAGS
    if kind in {"choosy", "tied", "mean", "twice"}:
        assert route == ONE_BY_ONE
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    norms = measure_gradient_norms(network, inputs, labels, route)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    network.eval()
    for row in range(5):
        network.zero_grad()
        one: Any = inputs[row : row + 1] if isinstance(inputs, Tensor) else None
        if isinstance(inputs, tuple):
            one = tuple(tensor[row : row + 1] for tensor in inputs)
        elif isinstance(inputs, dict):
            one = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        cross_entropy(network(one), labels[row : row + 1]).backward()
        squares = [p.grad.square().sum() for p in network.parameters() if p.grad is not None]
        assert float(norms[row]) == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-4)


def test_grand_measures_before_the_step_and_leaves_the_training_as_it_is() -> None:
    examples, options = build_examples(48), CurationOptions(epochs=2, batch_size=48, lr=0.01)
    grand, plain = build_method("grand", options), build_method("loss", options)
    state, other = grand.init(build_small_network(), examples), plain.init(build_small_network(), examples)
    plain.step(other)
    wanted = measure_gradient_norms(other.training.network, examples.inputs, examples.labels, VECTORISED)
    while not grand.is_done(state):
        grand.step(state)
    plain.step(other)
    assert state.memory["sums"].tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    left, right = state.training.network.state_dict(), other.training.network.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("name", "last"), [("el2n", 6), ("grand", 3), ("dual", 20), ("forgetting", 20)])
def test_the_training_ends_with_the_last_epoch_that_counts(name: str, last: int) -> None:
    method = build_method(name, CurationOptions(epochs=20, batch_size=16))
    state = method.init(build_small_network(), build_examples(48))
    reports = []
    while not method.is_done(state):
        reports.append(method.step(state))
    assert [report.step for report in reports] == list(range(1, 3 * last + 1))
    assert {report.num_steps for report in reports} == {3 * last}
    assert reports[-1].status.code.value == "finished"


def test_a_loss_that_is_not_finite_is_not_scored() -> None:
    options = CurationOptions(epochs=4, batch_size=16, optimizer="sgd", lr=1e38)
    with pytest.raises(NonFiniteError):
        curate(build_examples(48), build_small_network(), options, method="el2n")


@pytest.mark.parametrize("name", ["el2n", "grand", "forgetting", "dual"])
def test_hard_examples_are_kept_and_look_noisy(name: str) -> None:
    train, clean = build_examples(240, flipped=0.2), build_examples(240)
    options = CurationOptions(epochs=10, batch_size=16, lr=0.01)
    decisions = curate(train, build_small_network(), options, method=name)
    order = np.argsort(decisions.score, kind="stable")
    assert (np.diff(decisions.noise_score[order]) >= -1e-6).all()
    wrong = (train.labels != clean.labels).numpy()
    assert measure_auroc(decisions.noise_score, wrong) > (0.75 if name == "dual" else 0.9)
