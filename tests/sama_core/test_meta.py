"""Every kind of what is learned: its start, its range, its errors, and that its hypergradient is exact."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.optim import AdamW

from sama_core.batch import Batch
from sama_core.errors import NetworkError, OptionsError
from sama_core.evidence import Evidence
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.learned import AbstractLearned
from sama_core.meta.choice import build_learned
from sama_core.meta.combination import CombinedLearned
from sama_core.meta.example_logits import ExampleLogits
from sama_core.meta.label_corrector import LabelCorrector
from sama_core.meta.source_weights import SourceWeights
from sama_core.meta.task_weights import TaskWeights
from sama_core.meta.weight_network import WeightNetwork
from sama_core.problem import BilevelProblem
from sama_core.types import TensorExamples
from tests.sama_core.meta_problems import (
    BUILDERS,
    CPU,
    NUM_TASKS,
    build_meta,
    build_theta,
    differentiate_adamw,
    draw_evidence,
    lose_main,
    lose_tasks,
    number_sources,
    read_main,
    take_step,
)
from tests.sama_core.problems import NUM_CLASSES, NUM_FEATURES, draw_batch

WEIGHTS = ["network", "logits", "sources", "network x sources"]
CORRECTORS = ["corrector", "corrector without confusion", "network x sources x corrector"]
TASKS = ["tasks", "logits x tasks"]
DOUBT = 1.0 / (1.0 + math.exp(3.0))


def _observe(batch: Batch, logits: Tensor) -> Evidence:
    return draw_evidence(batch)


def _flatten(vector: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in vector])


@pytest.mark.parametrize("name", BUILDERS)
def test_hypergradient_equals_autograd_through_a_real_step_with_dropout_on(name: str) -> None:
    problem = BilevelProblem(build_theta(name), build_meta(name), CPU, meta_loss=lose_main)
    optimizer = AdamW(problem.network.parameters(), lr=0.01, weight_decay=0.2)
    method = SamaHypergradient(ForwardModeRoute())
    for step in range(3):
        take_step(problem, optimizer, draw_batch(8, seed=step), _observe, method)
    batch, meta = draw_batch(8, seed=7), draw_batch(6, seed=100)
    truth = _flatten(differentiate_adamw(problem, optimizer, batch, meta))
    reference = UnrolledHypergradient()
    done = take_step(problem, optimizer, batch, _observe, reference)
    assert float(truth.norm()) > 0
    for measured in (method, reference):
        estimate = _flatten(measured.estimate(problem, optimizer, [done], meta).hypergradient)
        assert float((estimate - truth).norm() / truth.norm()) < 1e-10


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_has_a_derivative(name: str) -> None:
    learned, batch = build_meta(name), draw_batch(20, seed=0)
    coefficients = learned(draw_evidence(batch))
    mixture = torch.randn(coefficients.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (mixture * coefficients).sum().backward()
    without = [key for key, param in learned.named_parameters() if param.grad is None or not param.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", BUILDERS)
def test_something_moves_from_the_start(name: str) -> None:
    learned, batch = build_meta(name, std=0.0), draw_batch(20, seed=0)
    coefficients = learned(draw_evidence(batch))
    mixture = torch.randn(coefficients.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (mixture * coefficients).sum().backward()
    assert max(float(param.grad.abs().max()) for param in learned.parameters() if param.grad is not None) > 1e-2


@pytest.mark.parametrize("name", WEIGHTS + TASKS)
def test_the_start_is_plain_training(name: str) -> None:
    coefficients = build_meta(name, std=0.0)(draw_evidence(draw_batch(8, seed=0)))
    assert coefficients.shape == ((8, NUM_TASKS) if name in TASKS else (8,))
    assert bool((coefficients == 1.0).all())


@pytest.mark.parametrize("name", CORRECTORS)
def test_the_start_is_almost_the_given_label(name: str) -> None:
    evidence = draw_evidence(draw_batch(8, seed=0))
    labels = build_meta(name, std=0.0)(evidence)
    wanted = (1.0 - DOUBT) * one_hot(evidence.labels, NUM_CLASSES) + DOUBT * evidence.predictions
    torch.testing.assert_close(labels.detach(), wanted)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("std", [0.5, 1e4])
def test_coefficients_are_as_positive_as_declared_and_fit_the_losses(name: str, std: float) -> None:
    learned, batch = build_meta(name, std), draw_batch(20, seed=0)
    coefficients = learned(draw_evidence(batch)).detach()
    outputs = build_theta(name)(batch.inputs)
    assert learned.losses(outputs, batch).shape == coefficients.shape
    assert learned.logits(outputs).shape == (20, NUM_CLASSES)
    assert learned.is_positive == (name not in CORRECTORS)
    assert float(coefficients.min()) >= 0.0
    assert float(coefficients.min()) > 1e-4 or not learned.is_positive
    if name in TASKS:
        assert float(coefficients.max()) < 2.0**2
    if name.startswith("corrector"):
        torch.testing.assert_close(coefficients.sum(1), torch.ones(20, dtype=torch.float64))


def test_a_corrector_at_the_networks_own_prediction_is_a_weight_until_it_learns_to_sharpen() -> None:
    batch = draw_batch(8, seed=0)
    logits = torch.randn(8, NUM_CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    drawn = draw_evidence(batch)
    evidence = Evidence(drawn.rows, drawn.labels, drawn.features, logits.detach().softmax(1))
    corrector = build_meta("corrector", std=0.0)
    assert isinstance(corrector, LabelCorrector)
    error = logits.detach().softmax(1) - one_hot(batch.labels, NUM_CLASSES)

    def pull() -> Tensor:
        loss = (corrector(evidence).detach() * corrector.losses(logits, batch)).sum()
        return torch.autograd.grad(loss, logits)[0]

    torch.testing.assert_close(pull(), (1.0 - DOUBT) * error)
    nn.init.constant_(corrector.sharpness, 1.0)
    assert float(torch.cosine_similarity(pull(), error, dim=1).min()) < 0.99999


def test_a_corrector_survives_a_network_that_is_sure() -> None:
    corrector = build_meta("corrector")
    assert isinstance(corrector, LabelCorrector)
    sure = torch.eye(NUM_CLASSES, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0])
    evidence = Evidence(labels, labels, torch.zeros(3, NUM_FEATURES, dtype=torch.float64), sure)
    coefficients = corrector(evidence)
    coefficients[:, 1].sum().backward()
    assert bool(torch.isfinite(coefficients).all())
    assert all(bool(torch.isfinite(param.grad).all()) for param in corrector.parameters() if param.grad is not None)
    assert not corrector.correct(evidence).requires_grad
    assert torch.equal(corrector.correct(evidence), coefficients.detach())


def test_sources_are_no_part_of_a_checkpoint_and_follow_the_rows() -> None:
    learned = SourceWeights(number_sources(), num_sources=4)
    assert set(learned.state_dict()) == {"source_logits"}
    nn.init.constant_(learned.source_logits[1:2], -3.0)
    evidence = draw_evidence(draw_batch(8, seed=0))
    is_low = learned(evidence).detach() < 0.5
    assert torch.equal(is_low, number_sources()[evidence.rows] == 1)
    assert [round(float(weight), 2) for weight in learned.weights()] == [1.0, 0.31, 1.0, 1.0]


def test_the_weight_network_sees_the_source_and_keeps_it_out_of_checkpoints() -> None:
    learned = WeightNetwork(NUM_FEATURES, sources=number_sources()).double()
    assert learned.origins is not None
    assert "sources" not in learned.state_dict()
    nn.init.constant_(learned.output.weight, 1.0)
    nn.init.zeros_(learned.hidden.weight)
    nn.init.zeros_(learned.hidden.bias)
    nn.init.constant_(learned.origins.weight[1:2], -3.0)
    evidence = draw_evidence(draw_batch(8, seed=0))
    assert torch.equal(learned(evidence).detach() < 0.5, number_sources()[evidence.rows] == 1)


@pytest.mark.parametrize(("num_sources", "is_seen"), [(3, True), (4, False)])
def test_sources_of_few_rows_each_are_not_looked_at(num_sources: int, is_seen: bool) -> None:
    labels = torch.arange(30) % 2
    examples = TensorExamples(torch.zeros(30, 1), labels, sources=torch.arange(30) % num_sources)
    learned = build_learned("network", examples, num_features=2)
    assert isinstance(learned, WeightNetwork)
    assert (learned.origins is not None) == is_seen


def test_a_combination_is_the_product_and_takes_the_losses_of_the_part_with_its_own() -> None:
    evidence, batch = draw_evidence(draw_batch(8, seed=0)), draw_batch(8, seed=0)
    weights, corrector = build_meta("network"), build_meta("corrector")
    for parts in ([weights, corrector], [corrector, weights], [CombinedLearned([corrector]), weights]):
        learned = CombinedLearned(parts)
        torch.testing.assert_close(learned(evidence), weights(evidence).unsqueeze(1) * corrector(evidence))
        outputs = build_theta("corrector")(batch.inputs)
        assert torch.equal(learned.losses(outputs, batch), corrector.losses(outputs, batch))
    assert CombinedLearned([CombinedLearned([corrector]), weights]).kind == "corrector x network"


class _TwoTerms(AbstractLearned):
    kind = "two terms"

    def forward(self, evidence: Evidence) -> Tensor:
        return torch.ones(len(evidence.rows), 2)


def _lose_wrongly(outputs: Tensor, batch: Batch) -> Tensor:
    return outputs.sum()


BAD_ARGUMENTS: dict[str, tuple[Callable[[], object], str]] = {
    "no features": (lambda: WeightNetwork(0), "num_features: 0; wanted a whole number of at least 1"),
    "half a unit": (lambda: WeightNetwork(3, width=0.5), "width: 0.5; wanted a whole number of at least 1"),  # type: ignore[arg-type]
    "true": (lambda: ExampleLogits(True), "num_examples: True; wanted a whole number of at least 1"),
    "one class": (lambda: LabelCorrector(3, 1), "num_classes: 1; wanted a whole number of at least 2"),
    "one task": (lambda: TaskWeights(1, lose_tasks, 3), "num_tasks: 1; wanted a whole number of at least 2"),
    "no function": (
        lambda: TaskWeights(2, None, 3),  # type: ignore[arg-type]
        "task_losses: NoneType; wanted a function of (outputs, batch)",
    ),
    "no function of outputs": (
        lambda: TaskWeights(2, lose_tasks, 3, main_logits=0),  # type: ignore[arg-type]
        "main_logits: int; wanted a function of (outputs), or None",
    ),
    "a head as loss": (
        lambda: TaskWeights(2, nn.Linear(3, 2), 3),
        "task_losses: Linear with parameters; wanted none: the base optimizer trains those of the network, the meta "
        "optimizer those of the weights",
    ),
    "a list": (
        lambda: SourceWeights([0, 1], 2),  # type: ignore[arg-type]
        "sources: list; wanted a tensor of whole numbers (N,) from 0 to 1, one for each row",
    ),
    "floats": (
        lambda: SourceWeights(torch.zeros(2), 2),
        "sources: torch.float32 of shape (2,); wanted whole numbers (N,) from 0 to 1, one for each row",
    ),
    "a table": (
        lambda: SourceWeights(torch.zeros(2, 1, dtype=torch.int64), 2),
        "sources: torch.int64 of shape (2, 1); wanted whole numbers (N,) from 0 to 1, one for each row",
    ),
    "no rows": (
        lambda: SourceWeights(torch.zeros(0, dtype=torch.int64), 2),
        "sources: torch.int64 of shape (0,); wanted whole numbers (N,) from 0 to 1, one for each row",
    ),
    "an unknown source": (
        lambda: SourceWeights(torch.tensor([0, 2]), 2),
        "sources: from 0 to 2; wanted whole numbers (N,) from 0 to 1, one for each row",
    ),
    "nothing": (lambda: CombinedLearned([]), "parts: none; wanted at least one"),
    "a stranger": (
        lambda: CombinedLearned([WeightNetwork(3), nn.Linear(1, 1)]),  # type: ignore[list-item]
        "parts[1]: Linear; wanted an AbstractLearned",
    ),
    "two owners of losses": (
        lambda: CombinedLearned([LabelCorrector(3, 2), WeightNetwork(3), TaskWeights(2, lose_tasks, 3)]),
        "parts: LabelCorrector (corrector) and TaskWeights (tasks) each read the outputs in their own way; wanted at "
        "most one such part",
    ),
    "two widths": (
        lambda: CombinedLearned([_TwoTerms(), build_meta("corrector")])(draw_evidence(draw_batch(8, seed=0))),
        "parts: coefficients of shapes two terms (8, 2), corrector (8, 3); wanted one number of terms an example",
    ),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_by_name(case: str) -> None:
    build, message = BAD_ARGUMENTS[case]
    with pytest.raises(OptionsError) as refusal:
        build()
    assert str(refusal.value) == message


def test_task_losses_of_another_shape_are_refused() -> None:
    batch = draw_batch(8, seed=0)
    learned = TaskWeights(2, lose_tasks, 3, main_logits=read_main).double()
    with pytest.raises(NetworkError, match=r"task_losses: returned shape \(8, 3\); wanted \(8, 2\), one for each"):
        learned.losses(build_theta("tasks")(batch.inputs), batch)
    scalar = TaskWeights(2, _lose_wrongly, 3)
    with pytest.raises(NetworkError, match=r"task_losses: returned shape \(\); wanted \(8, 2\)"):
        scalar.losses(torch.zeros(8, 3), batch)
    assert scalar.logits(torch.zeros(8, 3)).shape == (8, 3)
