"""The adaptation equals autograd through one real optimizer step, for every optimizer and option it is offered for."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from sama_core.adaptation import registry
from sama_core.adaptation.adam import AdamAdaptation
from sama_core.adaptation.contract import AbstractAdaptation, GroupView, take_snapshot, view_groups
from sama_core.adaptation.registry import find_adaptation
from sama_core.adaptation.sgd import PlainAdaptation, SgdAdaptation
from sama_core.errors import UnsupportedOptimizerError
from sama_core.hypergradient.optimizer_step import begin_state, step_optimizer
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.problem import BilevelProblem
from tests.sama_core.optimizers import VARIANTS, Build
from tests.sama_core.problems import (
    CPU,
    Scene,
    build_learned,
    build_network,
    draw_batch,
    relative_error,
    take_base_step,
)

FORWARD = SamaHypergradient(ForwardModeRoute())
EXACT = UnrolledHypergradient()


def train(build: Build, num_steps: int) -> tuple[Optimizer, list[nn.Parameter], Any, list[dict[str, Any]]]:
    """Take real steps on random gradients; return what the last one began from."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 2), (4,), (), (5,))]
    optimizer = build(params)
    for _ in range(num_steps):
        snapshot = take_snapshot(optimizer, with_states=True)
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
    settings = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
        for _ in group["params"]
    ]
    return optimizer, params, snapshot, settings


def replay(
    optimizer: Optimizer, params: Sequence[nn.Parameter], snapshot: Any, settings: Any, gradients: Sequence[Tensor]
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    kind = type(optimizer)
    states = [snapshot.states[id(p)] or begin_state(kind, optimizer.state[p]) for p in params]
    return step_optimizer(kind, [snapshot.params[id(p)] for p in params], gradients, states, settings)


@pytest.mark.parametrize("num_steps", [1, 2, 12])
@pytest.mark.parametrize("name", VARIANTS)
def test_differentiable_step_equals_the_real_one(name: str, num_steps: int) -> None:
    optimizer, params, snapshot, settings = train(VARIANTS[name], num_steps)
    stepped, states = replay(optimizer, params, snapshot, settings, [p.grad for p in params])
    for param, after, state in zip(params, stepped, states, strict=True):
        torch.testing.assert_close(after, param.detach(), rtol=1e-13, atol=1e-15)
        real = {key: value for key, value in optimizer.state[param].items() if isinstance(value, Tensor)}
        assert state.keys() == real.keys()
        for key, value in real.items():
            torch.testing.assert_close(state[key], value, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 12])
@pytest.mark.parametrize("name", VARIANTS)
def test_adaptation_equals_autograd_through_the_step(name: str, num_steps: int) -> None:
    optimizer, params, snapshot, settings = train(VARIANTS[name], num_steps)
    vectors = [torch.randn_like(param) for param in params]
    adapted: list[Tensor] = []
    for view in view_groups(optimizer, snapshot):
        share = vectors[len(adapted) : len(adapted) + len(view.params)]
        adapted += find_adaptation(optimizer).apply(view, [vector.clone() for vector in share])
    gradients = [param.grad.clone().requires_grad_() for param in params]
    stepped, _ = replay(optimizer, params, snapshot, settings, gradients)
    along = sum((-after * vector).sum() for after, vector in zip(stepped, vectors, strict=True))
    for measured, truth in zip(adapted, torch.autograd.grad(along, gradients), strict=True):
        assert relative_error(measured, truth) < 1e-10


@pytest.mark.parametrize("num_steps", [1, 2, 4, 12])
@pytest.mark.parametrize("name", VARIANTS)
def test_hypergradient_equals_autograd_through_the_step(name: str, num_steps: int) -> None:
    scene = Scene(VARIANTS[name], num_steps=num_steps)
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) < 1e-10


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.NAdam, optim.RMSprop, optim.Adagrad, optim.Adamax])
def test_first_step_with_the_usual_eps_is_exact_up_to_cancellation(kind: Build) -> None:
    """There D is what is left of 1 - |g| / (|g| + eps): eps itself, eight digits below the terms."""
    scene = Scene(lambda params: kind(params, lr=0.01), num_steps=1)
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) < 1e-7


@pytest.mark.parametrize("name", ["adam-groups", "sgd-nesterov", "adadelta-coupled"])
def test_frozen_parameters_are_left_out(name: str) -> None:
    def build() -> nn.Module:
        network = build_network()
        network[0].weight.requires_grad_(False)
        return network

    scene = Scene(VARIANTS[name], network=build)
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) < 1e-10


@pytest.mark.parametrize("method", [FORWARD, EXACT])
def test_parameters_out_of_use_are_not_stepped(method: Any) -> None:
    """A layer that the forward pass leaves out has no gradient; weight decay must not move it in the replay either."""

    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = build_network()
            with torch.random.fork_rng(devices=[]):
                self.spare = nn.Linear(2, 2).double()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.used(inputs)

    plain = Scene(VARIANTS["adam-coupled"]).measure(method)
    assert relative_error(Scene(VARIANTS["adam-coupled"], network=Spare).measure(method), plain) < 1e-12


@pytest.mark.parametrize("name", ["sgd-momentum", "adam", "nadam", "radam", "adagrad"])
def test_a_rate_changed_between_steps_is_the_one_used(name: str) -> None:
    def measure(method: Any) -> Tensor:
        torch.manual_seed(0)
        network = build_network()
        problem = BilevelProblem(network, build_learned("network"), CPU)
        optimizer = VARIANTS[name](list(network.parameters()))
        for number, factor in enumerate((0.0, 1.0, 0.5, 0.2)):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * factor
            step = take_base_step(problem, optimizer, draw_batch(8, number), method)
        estimate = method.estimate(problem, optimizer, [step], draw_batch(6, 1000))
        return torch.cat([part.flatten() for part in estimate.hypergradient])

    assert relative_error(measure(FORWARD), measure(EXACT)) < 1e-10


class NoCurvature(AdamAdaptation):
    """Forgets that Adam's divisor answers the gradient too."""

    def find_constants(self, settings: Any, states: Any) -> Any:
        constants = super().find_constants(settings, states)
        return {**constants, "bend": 0.0}


class NoBiasCorrection(AdamAdaptation):
    """Takes every step for a late one."""

    def find_constants(self, settings: Any, states: Any) -> Any:
        return super().find_constants(settings, [{**state, "step": torch.tensor(1e6)} for state in states])


class NoDecay(AdamAdaptation):
    """Takes the gradient of the loss for the one that Adam saw."""

    def apply(self, view: GroupView, vector: list[Tensor]) -> list[Tensor]:
        settings = {**view.settings, "weight_decay": 0.0}
        return super().apply(GroupView(settings, view.params, [], view.gradients, view.states, view.is_first), vector)


class NoDampening(SgdAdaptation):
    """Takes every step for the first."""

    def apply(self, view: GroupView, vector: list[Tensor]) -> list[Tensor]:
        settings = {**view.settings, "dampening": 0.0}
        return super().apply(GroupView(settings, view.params, [], view.gradients, view.states, view.is_first), vector)


@pytest.mark.parametrize(
    ("kind", "name", "mutant"),
    [
        (optim.Adam, "adam", NoCurvature()),
        (optim.Adam, "adam", NoBiasCorrection()),
        (optim.Adam, "adam-coupled", NoDecay()),
        (optim.Adam, "adam", PlainAdaptation()),
        (optim.SGD, "sgd-dampening", NoDampening()),
    ],
    ids=["no-curvature", "no-bias-correction", "no-decay", "plain-rate", "no-dampening"],
)
def test_the_comparison_tells_a_wrong_adaptation(
    monkeypatch: pytest.MonkeyPatch, kind: type[Optimizer], name: str, mutant: AbstractAdaptation
) -> None:
    monkeypatch.setitem(registry._ADAPTATIONS, kind, mutant)
    scene = Scene(VARIANTS[name])
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) > 1e-2


ADAPTIVE = ("adam", "amsgrad", "nadam", "radam", "rmsprop", "rmsprop-centered", "adagrad", "adamax")


@pytest.mark.parametrize("num_steps", [1, 8])
@pytest.mark.parametrize("name", [*ADAPTIVE, "adadelta", "sgd-momentum"])
def test_elements_that_no_gradient_has_reached_are_finite_and_pass_nothing_on(name: str, num_steps: int) -> None:
    param = nn.Parameter(torch.tensor([0.0, 1.0]))
    optimizer = VARIANTS[name]([param])
    for _ in range(num_steps):
        snapshot = take_snapshot(optimizer)
        param.grad = torch.tensor([0.0, 1.0])
        optimizer.step()
    (view,) = view_groups(optimizer, snapshot)
    (adapted,) = find_adaptation(optimizer).apply(view, [torch.ones(2)])
    assert bool(adapted.isfinite().all())
    is_adaptive = name in ADAPTIVE and not (name == "radam" and num_steps < 6)
    assert (float(adapted[0]) == 0.0) == is_adaptive


@pytest.mark.parametrize("name", [*ADAPTIVE, "adadelta", "sgd-momentum"])
def test_dead_units_leave_the_reference_finite_and_equal(name: str) -> None:
    """Half of the hidden units never fire: exact zeros in the gradient, whose roots have no derivative."""

    def build() -> nn.Module:
        hidden = nn.Linear(5, 8)
        hidden.bias.data[:4] = -1e3
        return nn.Sequential(hidden, nn.ReLU(), nn.Linear(8, 3)).double()

    scene = Scene(VARIANTS[name], network=build)
    truth = scene.measure(EXACT)
    assert bool(truth.isfinite().all())
    assert relative_error(scene.measure(FORWARD), truth) < 1e-10
    longer = Scene(VARIANTS[name], network=build, unroll_steps=3)
    assert bool(longer.measure(EXACT).isfinite().all())


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_asked_for_only_where_the_derivative_needs_them(name: str) -> None:
    optimizer = VARIANTS[name]([nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(4)])
    decays = any(g["weight_decay"] and not g.get("decoupled_weight_decay") for g in optimizer.param_groups)
    needed = decays and not isinstance(optimizer, optim.SGD)
    assert find_adaptation(optimizer).needs_params(optimizer) == needed
    assert not find_adaptation(optimizer, adapted=False).needs_params(optimizer)


@pytest.mark.parametrize(
    ("name", "momentum"),
    [
        ("sgd-momentum", 0.9),
        ("sgd", 0.0),
        ("adam-coupled", 0.8),
        ("nadam", 0.9),
        ("radam", 0.9),
        ("rmsprop-centered", 0.5),
        ("adamax", 0.8),
        ("adagrad", 0.0),
        ("adadelta", 0.0),
    ],
)
def test_momentum_is_the_share_that_the_next_step_repeats(name: str, momentum: float) -> None:
    optimizer = VARIANTS[name]([nn.Parameter(torch.ones(1))])
    assert find_adaptation(optimizer).momentum(optimizer.param_groups[0]) == momentum


SUPPORTED = "SGD, Adam, AdamW, NAdam, RAdam, RMSprop, Adagrad, Adamax, Adadelta"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: optim.Rprop(p), f"optimizer: Rprop; wanted one of {SUPPORTED}"),
        (lambda p: optim.LBFGS(p), f"optimizer: LBFGS; wanted one of {SUPPORTED}"),
        (lambda p: optim.Adafactor(p), f"optimizer: Adafactor; wanted one of {SUPPORTED}"),
        (lambda p: optim.ASGD(p), f"optimizer: ASGD; wanted one of {SUPPORTED}"),
        (lambda p: type("Wrapped", (optim.SGD,), {})(p, lr=0.1), f"optimizer: Wrapped; wanted one of {SUPPORTED}"),
        (lambda p: optim.SGD(p, lr=0.1, maximize=True), "optimizer: maximize=True; wanted maximize=False"),
        (lambda p: optim.Adadelta(p, maximize=True), "optimizer: maximize=True; wanted maximize=False"),
        (lambda p: optim.Adadelta(p, rho=0.0), "optimizer: Adadelta with rho=0; wanted rho above 0"),
    ],
)
def test_what_has_no_derived_adaptation_is_refused(build: Build, message: str) -> None:
    optimizer = build([nn.Parameter(torch.ones(1))])
    for ask in (
        lambda: find_adaptation(optimizer),
        lambda: find_adaptation(optimizer, adapted=False),
        lambda: EXACT.prepare(optimizer, is_first=True, is_last=True),
    ):
        with pytest.raises(UnsupportedOptimizerError) as caught:
            ask()
        assert str(caught.value) == message


def test_sparse_gradients_and_complex_parameters_are_refused() -> None:
    table = nn.Embedding(3, 2, sparse=True)
    optimizer = optim.SGD(table.parameters(), lr=0.1)
    snapshot = take_snapshot(optimizer)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UnsupportedOptimizerError, match="optimizer: a sparse gradient; wanted dense ones"):
        view_groups(optimizer, snapshot)
    number = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    number.grad = torch.ones_like(number)
    optimizer = optim.SGD([number], lr=0.1)
    with pytest.raises(UnsupportedOptimizerError, match="optimizer: a complex parameter; wanted real ones"):
        view_groups(optimizer, take_snapshot(optimizer))


def test_settings_of_the_step_may_be_given() -> None:
    param = nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([param], lr=0.5)
    snapshot = take_snapshot(optimizer)
    param.grad = torch.ones(1)
    used = [dict(optimizer.param_groups[0])]
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    (view,) = view_groups(optimizer, snapshot, used)
    assert find_adaptation(optimizer).apply(view, [torch.ones(1)])[0].tolist() == [0.5]


def test_a_snapshot_leaves_the_optimizer_as_it_was() -> None:
    optimizer = optim.Adam([nn.Parameter(torch.ones(1))])
    take_snapshot(optimizer, with_states=True)
    assert len(optimizer.state) == 0


def test_method_without_adaptation_takes_the_learning_rate() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = optim.Adam([param], lr=0.25)
    snapshot = take_snapshot(optimizer)
    param.grad = torch.ones(2)
    optimizer.step()
    (view,) = view_groups(optimizer, snapshot)
    (adapted,) = find_adaptation(optimizer, adapted=False).apply(view, [torch.ones(2)])
    assert adapted.tolist() == [0.25, 0.25]
