"""The hypergradient equals autograd through one real optimizer step, and falls into none of the known traps."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from sama_core.hypergradient.directional import (
    FiniteDifferenceRoute,
    ForwardModeRoute,
    choose_route,
)
from sama_core.hypergradient.exact import ExactHypergradient
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.problem import Batch, BilevelProblem
from tests.sama_core.problems import (
    CPU,
    OPTIMIZERS,
    Scene,
    build_learned,
    build_network,
    build_scene,
    draw_batch,
    draw_features,
    relative_error,
    take_base_step,
)

FORWARD = SamaHypergradient(ForwardModeRoute())
DIFFERENCE = SamaHypergradient(FiniteDifferenceRoute())
EXACT = ExactHypergradient()


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("learned", ["network", "logits"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_both_routes_equal_autograd_with_dropout_on(optimizer: str, learned: str, norm: str) -> None:
    scene = build_scene(optimizer, learned, norm)
    truth = scene.measure(EXACT)
    assert relative_error(scene.measure(FORWARD), truth) < 1e-10
    assert relative_error(scene.measure(DIFFERENCE), truth) < 1e-5


@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adam-coupled-decay"])
def test_first_step_is_exact_too(optimizer: str) -> None:
    scene = build_scene(optimizer, num_steps=1)
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) < 1e-8


def test_exact_reference_equals_differences_of_the_real_step() -> None:
    """The reference itself, against the meta loss after real optimizer steps under nudged lambda."""
    scene = build_scene("adamw", "logits", num_steps=3)
    truth = scene.measure(EXACT)

    def meta_loss_at(row: int, shift: float) -> float:
        again = build_scene("adamw", "logits", num_steps=2)
        with torch.no_grad():
            again.problem.learned.logits[row] += shift
        take_base_step(again.problem, again.optimizer, draw_batch(8, seed=2), draw_features(8, seed=2))
        with torch.no_grad():
            buffers = dict(again.problem.network.named_buffers())
            return float(again.problem.evaluate(again.problem.params, buffers, again.meta).mean())

    rows = draw_batch(8, seed=2).rows.tolist()
    measured = [(meta_loss_at(row, 1e-5) - meta_loss_at(row, -1e-5)) / 2e-5 for row in rows]
    assert relative_error(torch.tensor(measured).double(), truth[rows]) < 1e-6
    untouched = [row for row in range(len(truth)) if row not in rows]
    assert float(truth[untouched].abs().sum()) == 0


def test_order_of_the_examples_does_not_matter() -> None:
    def measure(order: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        network = build_network(dropout=0.0)
        problem = BilevelProblem(network, build_learned("network"), CPU)
        optimizer = AdamW(network.parameters(), lr=0.01)
        take_base_step(problem, optimizer, draw_batch(8, 0), draw_features(8, 0))
        batch, features = draw_batch(8, 1), draw_features(8, 1)
        shuffled = Batch(batch.rows[order], batch.inputs[order], batch.labels[order], batch.seed)
        base = take_base_step(problem, optimizer, shuffled, features[order])
        return Scene(problem, optimizer, base, draw_batch(6, 9)).measure(FORWARD)

    torch.testing.assert_close(measure(torch.randperm(8)), measure(torch.arange(8)), rtol=1e-9, atol=1e-14)


def test_features_are_constants() -> None:
    """Trap 1: a gradient must not flow through what the weight network sees."""
    scene = build_scene("sgd")
    features = scene.base.features.clone().requires_grad_()
    weights = scene.problem.weigh(scene.base.batch.rows, features)
    weights.sum().backward()
    assert features.grad is None

    def truth_with(features_of_losses: bool) -> torch.Tensor:
        network, learned = scene.problem.network, scene.problem.learned
        theta = dict(scene.problem.params)
        losses = scene.problem.evaluate(theta, {}, scene.base.batch)
        seen = losses.unsqueeze(1).expand(-1, 4)
        used = seen if features_of_losses else seen.detach()
        loss = (learned(scene.base.batch.rows, used) * losses).mean()
        gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        after = {key: p - 0.1 * g for (key, p), g in zip(theta.items(), gradients, strict=True)}
        meta = scene.problem.evaluate(after, dict(network.named_buffers()), scene.meta).mean()
        return torch.cat([h.flatten() for h in torch.autograd.grad(meta, list(learned.parameters()))])

    frozen, leaking = truth_with(False), truth_with(True)
    assert relative_error(leaking, frozen) > 1e-2, "the trap is real: leaking through the features changes the answer"


def test_both_passes_share_the_dropout_mask() -> None:
    """Trap 2: with another mask in the second pass the answer is worthless."""
    scene = build_scene("sgd")
    truth = scene.measure(EXACT)
    batch = scene.base.batch
    other = Batch(batch.rows, batch.inputs, batch.labels, batch.seed + 1)
    scene.base = type(scene.base)(scene.base.snapshot, other, scene.base.features)
    assert relative_error(scene.measure(FORWARD), truth) > 1e-2


def test_embedding_rows_absent_from_the_batch_do_not_take_the_step() -> None:
    """Their adaptation is lr / eps of Adam: without care the finite difference would go along them alone."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 6)
            self.out = nn.Linear(6, 3)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.table(words).mean(1)))

    torch.manual_seed(0)
    network = Bag().double()
    problem = BilevelProblem(network, build_learned("network"), CPU)
    optimizer = AdamW(network.parameters(), lr=0.01)
    for seed in range(3):
        words = torch.randint(0, 10, (8, 4), generator=torch.Generator().manual_seed(seed))
        batch = Batch(torch.arange(8), words, torch.arange(8) % 3, seed)
        base = take_base_step(problem, optimizer, batch, draw_features(8, seed))
    # the meta batch holds words that no base batch had: there the direction is enormous
    meta = Batch(torch.arange(6), torch.randint(0, 50, (6, 4)), torch.arange(6) % 3, 7)
    scene = Scene(problem, optimizer, base, meta)
    truth = scene.measure(EXACT)
    assert relative_error(scene.measure(DIFFERENCE), truth) < 1e-5
    assert relative_error(scene.measure(FORWARD), truth) < 1e-10


def test_frozen_layers_and_parameter_groups_are_honoured() -> None:
    torch.manual_seed(0)
    network = build_network()
    network[0].requires_grad_(False)
    problem = BilevelProblem(network, build_learned("network"), CPU)
    groups = [{"params": list(network[1].parameters()), "lr": 0.3}, {"params": list(network[4].parameters())}]
    optimizer = SGD(groups, lr=0.05, momentum=0.9)
    for seed in range(3):
        base = take_base_step(problem, optimizer, draw_batch(8, seed), draw_features(8, seed))
    scene = Scene(problem, optimizer, base, draw_batch(6, 99))
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) < 1e-10


def test_evaluating_after_the_step_is_only_an_approximation() -> None:
    """The published shortcut, s_i at theta' instead of theta: near, but not equal."""
    scene = build_scene("sgd-momentum")
    truth = scene.measure(EXACT)
    after = {id(p): p.detach().clone() for p in scene.problem.network.parameters()}
    snapshot = scene.base.snapshot
    moved = type(snapshot)(type(snapshot.optimizer)(after, {}, snapshot.optimizer.has_momentum), snapshot.buffers)
    scene.base = type(scene.base)(moved, scene.base.batch, scene.base.features)
    assert 1e-4 < relative_error(scene.measure(FORWARD), truth) < 0.5


def test_without_adaptation_the_direction_is_the_plain_gradient() -> None:
    scene = build_scene("sgd")
    plain = scene.measure(SamaHypergradient(ForwardModeRoute(), adapted=False))
    torch.testing.assert_close(plain, scene.measure(FORWARD), rtol=1e-12, atol=0)
    adamw = build_scene("adamw")
    plain = adamw.measure(SamaHypergradient(ForwardModeRoute(), adapted=False))
    assert relative_error(plain, adamw.measure(FORWARD)) > 0.1


class _NoForwardDerivative(torch.autograd.Function):
    """Doubles its input; knows no forward derivative."""

    @staticmethod
    def forward(ctx: object, inputs: torch.Tensor) -> torch.Tensor:
        return 2 * inputs

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return 2 * gradient


class _Doubling(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return _NoForwardDerivative.apply(inputs)


def test_auto_takes_forward_mode_where_it_can_and_says_why() -> None:
    problem = BilevelProblem(build_network("batch"), build_learned("network"), CPU)
    route, reason = choose_route("auto", None, problem, draw_batch(8, 0))
    assert isinstance(route, ForwardModeRoute)
    assert reason == "forward-mode: exact, and every layer of this network has a forward derivative"


def test_auto_falls_back_to_differences_and_says_why() -> None:
    network = nn.Sequential(nn.Linear(5, 4), _Doubling(), nn.Linear(4, 3)).double()
    problem = BilevelProblem(network, build_learned("network"), CPU)
    route, reason = choose_route("auto", None, problem, draw_batch(8, 0))
    assert isinstance(route, FiniteDifferenceRoute)
    assert reason.startswith("finite-difference: no forward derivative here (")
    scene = build_scene("adamw", network=network)
    assert relative_error(scene.measure(DIFFERENCE), scene.measure(EXACT)) < 1e-5


@pytest.mark.parametrize("name", ["forward-mode", "finite-difference"])
def test_a_route_can_be_forced(name: str) -> None:
    problem = BilevelProblem(build_network(), build_learned("network"), CPU)
    route, reason = choose_route(name, None, problem, draw_batch(8, 0))
    assert (route.name, reason) == (name, f"{name}, as asked for")
