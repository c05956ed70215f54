"""SAMA equals autograd through one real optimizer step by every route, and falls into none of the known traps."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.batch import Batch
from sama_core.errors import OptionsError
from sama_core.hypergradient.contract import BaseStep, HypergradientEstimate
from sama_core.hypergradient.routes import choice
from sama_core.hypergradient.routes.choice import choose_route
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.hypergradient.routes.finite_difference import FiniteDifferenceRoute
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.routes.ghost import GhostRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.options import CurationOptions
from sama_core.precision import Precision
from sama_core.problem import BilevelProblem
from tests.sama_core.problems import (
    CPU,
    OPTIMIZERS,
    Scene,
    build_learned,
    build_network,
    draw_batch,
    draw_evidence,
    relative_error,
    take_base_step,
)

GHOST = SamaHypergradient(GhostRoute())
FORWARD = SamaHypergradient(ForwardModeRoute())
DIFFERENCE = SamaHypergradient(FiniteDifferenceRoute())
CENTRAL = SamaHypergradient(FiniteDifferenceRoute(central=True))
EXACT = UnrolledHypergradient()


def build_batch_norm() -> nn.Module:
    return build_network("batch")


def build_frozen() -> nn.Module:
    network = build_network()
    network[0].requires_grad_(False)
    return network


class LowRank(nn.Module):
    """A frozen layer and a trainable low-rank update of it."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.down = nn.Linear(inner.in_features, 2, bias=False)
        self.up = nn.Linear(2, inner.out_features, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs) + self.up(self.down(inputs))


def build_adapter() -> nn.Module:
    first, norm, activation, dropout, last = build_network()
    return nn.Sequential(LowRank(first), norm, activation, dropout, LowRank(last)).double()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dropout": build_network,
    "batch-norm": build_batch_norm,
    "frozen": build_frozen,
    "adapter": build_adapter,
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("learned", ["network", "logits"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_route_equals_autograd_through_the_real_step(optimizer: str, learned: str, network: str) -> None:
    scene = Scene(optimizer, learned, NETWORKS[network])
    truth = scene.measure(EXACT)
    assert relative_error(scene.measure(FORWARD), truth) < 1e-10
    assert relative_error(scene.measure(DIFFERENCE), truth) < 1e-5
    assert relative_error(scene.measure(CENTRAL), truth) < 1e-5
    if network != "batch-norm":
        assert relative_error(scene.measure(GHOST), truth) < 1e-10


@pytest.mark.parametrize("clip_norm", [None, 0.05, 100.0])
@pytest.mark.parametrize("num_pieces", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw", "adam-coupled-decay"])
def test_accumulated_and_clipped_gradients_are_exact_too(
    optimizer: str, num_pieces: int, clip_norm: float | None
) -> None:
    scene = Scene(optimizer, num_pieces=num_pieces, clip_norm=clip_norm)
    truth = scene.measure(EXACT)
    for method in (FORWARD, GHOST):
        assert relative_error(scene.measure(method), truth) < 1e-10
    assert relative_error(scene.measure(DIFFERENCE), truth) < 1e-5


@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adam-coupled-decay"])
def test_first_step_is_exact_too(optimizer: str) -> None:
    scene = Scene(optimizer, num_steps=1)
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) < 1e-8


def test_order_of_the_examples_does_not_matter() -> None:
    def draw(size: int, seed: int) -> Batch:
        batch = draw_batch(size, seed)
        order = torch.arange(size - 1, -1, -1)
        return Batch(batch.rows[order], batch.inputs[order], batch.labels[order], batch.seed)

    scene = Scene(network=lambda: build_network(dropout=0.0), learned="logits")
    turned = replace(scene, draw=draw)
    torch.testing.assert_close(turned.measure(FORWARD), scene.measure(FORWARD), rtol=1e-9, atol=1e-14)


def test_features_are_constants() -> None:
    """Trap 1: a gradient must not flow through what the weight network sees."""
    torch.manual_seed(0)
    network = build_network(dropout=0.0)
    problem = BilevelProblem(network, build_learned("network"), CPU)
    batch, meta = draw_batch(8, 0), draw_batch(6, 1)
    seen = draw_evidence(batch)
    features = seen.features.clone().requires_grad_()
    problem.weigh(replace(seen, features=features)).sum().backward()
    assert features.grad is None

    def differentiate(*, leaking: bool) -> torch.Tensor:
        theta = dict(problem.params)
        losses = problem.evaluate(theta, {}, batch)
        columns = losses.unsqueeze(1).expand(-1, 4)
        weights = problem.learned(replace(seen, features=columns if leaking else columns.detach()))
        gradients = torch.autograd.grad((weights * losses).mean(), list(theta.values()), create_graph=True)
        after = {key: p - 0.1 * g for (key, p), g in zip(theta.items(), gradients, strict=True)}
        loss = problem.evaluate_meta(after, {}, meta)
        return torch.cat([h.flatten() for h in torch.autograd.grad(loss, list(problem.learned.parameters()))])

    error = relative_error(differentiate(leaking=True), differentiate(leaking=False))
    assert error > 1e-2, "the trap is real: leaking through the features changes the answer"


class _OtherMask(FiniteDifferenceRoute):
    """Trap 2: draws another dropout mask in its second pass."""

    def differentiate(self, problem, pieces, **others):  # type: ignore[no-untyped-def]
        moved = [replace(piece, batch=replace(piece.batch, seed=piece.batch.seed + 1)) for piece in pieces]
        return super().differentiate(problem, moved, **others)


class _AfterTheStep(SamaHypergradient):
    """The published shortcut: s_i at theta' instead of theta."""

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        now = take_snapshot(optimizer)
        had = steps[-1].snapshot.has_momentum
        moved = replace(steps[-1], snapshot=OptimizerSnapshot(now.params, {}, had))
        return super().estimate(problem, optimizer, [moved], meta)


def test_both_passes_share_the_dropout_mask() -> None:
    scene = Scene("sgd")
    truth = scene.measure(EXACT)
    assert relative_error(scene.measure(SamaHypergradient(_OtherMask())), truth) > 1e-2


def test_evaluating_after_the_step_is_only_an_approximation() -> None:
    scene = Scene("sgd-momentum")
    error = relative_error(scene.measure(_AfterTheStep(ForwardModeRoute())), scene.measure(EXACT))
    assert 1e-4 < error < 0.5


class Words(nn.Module):
    """The mean of the words' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.table(words).mean(1)))


def draw_words(size: int, seed: int) -> Batch:
    """Return sentences of the first ten words; those of the meta batch (seed 1000) use all fifty."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, 50 if seed == 1000 else 10, (size, 4), generator=generator)
    return Batch(torch.arange(size), words, torch.arange(size) % 3, seed)


def test_embedding_rows_absent_from_the_batch_do_not_take_the_step() -> None:
    """Their adaptation is lr / eps of Adam: without care the finite difference would go along them alone."""
    scene = Scene("adamw", network=lambda: Words().double(), draw=draw_words)
    truth = scene.measure(EXACT)
    assert relative_error(scene.measure(DIFFERENCE), truth) < 1e-5
    assert relative_error(scene.measure(FORWARD), truth) < 1e-10
    assert relative_error(scene.measure(GHOST), truth) < 1e-10


def test_parameter_groups_are_honoured() -> None:
    def build(params: list[nn.Parameter]) -> Optimizer:
        return SGD([{"params": params[:2], "lr": 0.3}, {"params": params[2:]}], lr=0.05, momentum=0.9)

    scene = Scene(build)
    assert relative_error(scene.measure(FORWARD), scene.measure(EXACT)) < 1e-10


def test_without_adaptation_the_direction_is_the_plain_gradient() -> None:
    plain = SamaHypergradient(ForwardModeRoute(), adapted=False)
    torch.testing.assert_close(Scene("sgd").measure(plain), Scene("sgd").measure(FORWARD), rtol=1e-12, atol=0)
    assert relative_error(Scene("adamw").measure(plain), Scene("adamw").measure(FORWARD)) > 0.1


@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw"])
def test_every_unrolled_batch_brings_the_estimate_nearer_to_the_truth(optimizer: str) -> None:
    """Through k = 5 steps the last step's share is a part of the whole; the others' shares add to it."""
    scene = Scene(optimizer, "network", num_steps=16, unroll_steps=5)
    truth = scene.measure(EXACT)

    def cosine(method: SamaHypergradient) -> float:
        return float(torch.cosine_similarity(scene.measure(method), truth, dim=0))

    last, every = cosine(FORWARD), cosine(SamaHypergradient(ForwardModeRoute(), every_step=True))
    assert every > 0.9
    assert every > last + 0.2


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


def choose(network: nn.Module, precision: str = "float32", **options: object) -> tuple[AbstractRoute, str]:
    """Return the route for a network, batches of 8."""
    problem = BilevelProblem(network, build_learned("network"), CPU, precision=Precision(precision, CPU))
    batch = draw_batch(8, 0)
    return choose_route(CurationOptions(**options), problem, batch, draw_evidence(batch))


def build_wide(*extra: nn.Module) -> nn.Module:
    """Return a network with more parameters than a batch of 8 has activations."""
    return nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 64), *extra, nn.Linear(64, 3)).double()


def test_auto_takes_the_ghost_route_where_it_can_and_says_why() -> None:
    route, reason = choose(build_wide())
    assert isinstance(route, GhostRoute)
    assert reason == "ghost: exact, inside the base backward; every layer of this network is covered"


def test_auto_leaves_the_ghost_where_it_would_keep_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_SMALL_BYTES", 0)
    network = nn.Sequential(nn.Linear(5, 2), nn.LayerNorm(2), nn.LayerNorm(2), nn.Linear(2, 3)).double()
    route, reason = choose(network)
    assert isinstance(route, FiniteDifferenceRoute)
    assert "MiB of activations, more than the" in reason


def test_auto_takes_differences_where_examples_mix_and_says_why() -> None:
    route, reason = choose(build_wide(nn.BatchNorm1d(64)))
    assert isinstance(route, FiniteDifferenceRoute)
    assert reason.startswith("finite-difference: one forward pass; not ghost: ")
    assert "BatchNorm1d" in reason


def test_auto_takes_forward_mode_in_half_precision_and_says_why() -> None:
    route, reason = choose(build_wide(nn.BatchNorm1d(64)), "bfloat16")
    assert isinstance(route, ForwardModeRoute)
    assert reason.startswith("forward-mode: exact in bfloat16; not ghost: ")


def test_auto_falls_back_to_differences_where_no_forward_derivative_is_known() -> None:
    network = nn.Sequential(nn.Linear(5, 4), _Doubling(), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    route, reason = choose(network, "bfloat16")
    assert isinstance(route, FiniteDifferenceRoute)
    assert "not forward-mode: a layer has no forward derivative (" in reason
    scene = Scene("adamw", network=lambda: nn.Sequential(nn.Linear(5, 4), _Doubling(), nn.Linear(4, 3)).double())
    assert relative_error(scene.measure(DIFFERENCE), scene.measure(EXACT)) < 1e-5


@pytest.mark.parametrize("name", ["ghost", "forward-mode", "finite-difference"])
def test_a_route_can_be_forced(name: str) -> None:
    route, reason = choose(build_network(), route=name)
    assert (route.name, reason) == (name, f"{name}, as asked for")


def test_a_forced_route_that_cannot_serve_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"route: ghost, but .*BatchNorm1d.*; wanted auto, finite-difference or"):
        choose(build_network("batch"), route="ghost")


def test_choosing_a_route_leaves_no_trace() -> None:
    network = build_network()
    for param in network.parameters():
        param.grad = torch.ones_like(param)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    choose(network)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert all(bool((param.grad == 1).all()) for param in network.parameters())


def test_parameters_are_bit_equal_before_and_after_an_estimate() -> None:
    """Trap 5: no route edits the network in place and back."""
    torch.manual_seed(0)
    network = build_network()
    optimizer = AdamW(network.parameters(), lr=0.01)
    problem = BilevelProblem(network, build_learned("network"), CPU)
    for method in (GHOST, FORWARD, DIFFERENCE, CENTRAL):
        step = take_base_step(problem, optimizer, draw_batch(8, 0), method)
        before = [p.detach().clone() for p in network.parameters()]
        method.estimate(problem, optimizer, [step], draw_batch(6, 1))
        assert all(torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))
