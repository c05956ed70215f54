"""The implicit methods: how they converge, where they stop, and what they refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from sama_core.errors import NetworkError, OptionsError
from sama_core.hypergradient.cg import CgHypergradient
from sama_core.hypergradient.contract import AbstractHypergradient
from sama_core.hypergradient.exact import ExactHypergradient
from sama_core.hypergradient.neumann import NeumannHypergradient
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.hypergradient.routes.finite_difference import FiniteDifferenceRoute
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.routes.ghost import GhostRoute
from sama_core.losses import LossFunction, given_label_losses
from sama_core.problem import BilevelProblem
from tests.conformance import quadratic
from tests.conformance.row import IMPLICIT, PLAIN
from tests.conformance.scene import CPU, Array, Scene, TableLearned, build_batch, flatten, relative_error

Implicit = NeumannHypergradient | CgHypergradient
FORWARD = ForwardModeRoute()
RIDGE = quadratic.build_ridge_row()
BENT_POINTS = np.array([[1.0, 0.2], [-0.4, 0.9]])
EIGENVALUES = np.linalg.eigvalsh(quadratic.ridge_hessian() + quadratic.DECAY * np.eye(2))


def test_neumann_converges_as_its_spectrum_says() -> None:
    truth, rate = RIDGE.answers[IMPLICIT], 0.5
    counts = (10, 20, 40)
    methods = [NeumannHypergradient(FORWARD, num_terms=n, rate=rate, damping=RIDGE.damping) for n in counts]
    errors = [relative_error(RIDGE.build().measure(method), truth) for method in methods]
    shrinking = np.abs(1 - rate * EIGENVALUES).max()
    assert errors[1] / errors[0] == pytest.approx(shrinking**10, rel=1e-2)
    assert errors[2] / errors[1] == pytest.approx(shrinking**20, rel=1e-2)


def test_neumann_grows_beyond_its_region_of_convergence() -> None:
    rate = 2.2 / EIGENVALUES.max()
    methods = [NeumannHypergradient(FORWARD, num_terms=n, rate=rate, damping=RIDGE.damping) for n in (5, 20)]
    errors = [relative_error(RIDGE.build().measure(method), RIDGE.answers[IMPLICIT]) for method in methods]
    assert errors[1] > 2 * errors[0] > 1


def test_neumann_without_further_terms_is_the_plain_method_after_the_step() -> None:
    """At the minimum a step does not move, so that ``after`` and ``before`` are the same."""
    measured = RIDGE.build().measure(NeumannHypergradient(FORWARD, num_terms=0))
    assert relative_error(measured, RIDGE.answers[PLAIN]) < 1e-10


@pytest.mark.parametrize("rate", [None, 0.2])
def test_neumann_takes_the_rates_of_the_step_group_by_group(rate: float | None) -> None:
    """A = diag(a): q_d = r_d v_d (1 + (1 - r_d a_d) + ...), with another learning rate r for each of the two groups."""
    curvatures, rates, num_terms = np.array([1.0, 2.0]), np.array([0.3, 0.1]), 3
    scene = _build_bent(curvatures)
    first, second = scene.problem.params.values()
    scene.optimizer = SGD([{"params": [first], "lr": rates[0]}, {"params": [second], "lr": rates[1]}])
    method = NeumannHypergradient(FORWARD, num_terms=num_terms, rate=rate)
    steps = scene.take_steps(method)
    for group in scene.optimizer.param_groups:
        group["lr"] = 77.0  # a schedule has moved on: the step's own rates count
    used = rates if rate is None else np.full(2, rate)
    direction = sum(used * (1 - used * curvatures) ** power for power in range(num_terms + 1))
    np.testing.assert_allclose(flatten(scene.estimate(method, steps)), _answer_bent(direction), rtol=1e-12)


def test_cg_is_done_after_as_many_terms_as_eigenvalues_and_stays_there() -> None:
    def error(num_terms: int, tolerance: float = 0.0) -> float:
        method = CgHypergradient(FORWARD, num_terms=num_terms, damping=RIDGE.damping, tolerance=tolerance)
        return relative_error(RIDGE.build().measure(method), RIDGE.answers[IMPLICIT])

    assert error(1) > 1e-3
    assert max(error(2), error(3), error(50)) < 1e-10
    assert error(50, tolerance=0.9) == error(1), "a loose tolerance stops after the first term"


class _Scalars(nn.Module):
    """Two parameters of one number each, shown for every example."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))
        self.second = nn.Parameter(torch.tensor([0.4], dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.first, self.second]).expand(len(inputs), 2)


def _build_bent(curvatures: Array) -> Scene:
    """Return l_i = 1/2 sum_d a_d theta_d^2 - theta . x_i, whose Hessian is diag(a), a of either sign."""
    bends, points, network = torch.tensor(curvatures), torch.tensor(BENT_POINTS), _Scalars()
    terms: LossFunction = (  # without a curvature the square is left out, that autograd may see a loss that is linear
        (lambda outputs, batch: (0.5 * bends * outputs.square() - outputs * points[batch.rows]).sum(1))
        if curvatures.any()
        else (lambda outputs, batch: -(outputs * points[batch.rows]).sum(1))
    )
    learned = TableLearned(np.zeros(2), lambda values: len(values) * values.softmax(0), terms)
    problem = BilevelProblem(network, learned, CPU, meta_loss=lambda outputs, batch: outputs.sum(1).mean())
    batch = build_batch(np.ones((2, 1)))
    return Scene(problem, SGD(network.parameters(), lr=0.1), batch, batch)


def _answer_bent(direction: Array) -> Array:
    """Return h for a given q: s_i = -x_i . q up to a constant, dc_i/dlambda_k = delta_ik - 1/2."""
    scores = -BENT_POINTS @ direction
    answer: Array = -0.5 * (scores - scores.mean())
    return answer


def test_cg_stops_at_negative_curvature_with_what_it_has_reached() -> None:
    """v = (1, 1), A = diag(4, -1): the first direction bends up (3), the second, conjugate to it, down."""
    measured = _build_bent(np.array([4.0, -1.0])).measure(CgHypergradient(FORWARD, damping=0.0))
    np.testing.assert_allclose(measured, _answer_bent(np.array([2 / 3, 2 / 3])), rtol=1e-12)


def test_cg_reaches_nothing_where_the_first_direction_bends_down() -> None:
    measured = _build_bent(np.array([1.0, -3.0])).measure(CgHypergradient(FORWARD, damping=0.0))
    assert measured.tolist() == [0.0, 0.0]
    damped = _build_bent(np.array([1.0, -3.0])).measure(CgHypergradient(FORWARD, damping=4.0))
    np.testing.assert_allclose(damped, _answer_bent(np.array([1 / 5, 1.0])), rtol=1e-12)


@pytest.mark.parametrize("method", [CgHypergradient(FORWARD, damping=0.5), ExactHypergradient(damping=0.5)])
def test_a_loss_without_curvature_leaves_the_damping_alone(method: AbstractHypergradient) -> None:
    measured = _build_bent(np.zeros(2)).measure(method)
    np.testing.assert_allclose(measured, _answer_bent(np.array([2.0, 2.0])), rtol=1e-12)


class _Attention(nn.Module):
    """One head over the two inputs seen as a sequence, by PyTorch's own choice of kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.spread, self.gather = nn.Linear(1, 12), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = self.spread(inputs.unsqueeze(2)).unsqueeze(1).chunk(3, dim=-1)
        return self.gather(scaled_dot_product_attention(query, key, value)[:, 0].mean(1))


def _build_classifier(network: nn.Module, num_passes: int = 1) -> Scene:
    generator = torch.Generator().manual_seed(3)
    for param in network.parameters():
        param.data = torch.randn(param.shape, generator=generator, dtype=torch.float64) * 0.5
    learned = TableLearned(np.linspace(-1, 1, 8), lambda values: 2.0 * values.sigmoid(), given_label_losses)
    problem = BilevelProblem(network.double(), learned, CPU)
    inputs = torch.randn(14, 2, generator=generator, dtype=torch.float64).numpy()
    labels = (inputs[:, 0] > inputs[:, 1]).astype(np.int64)
    optimizer, meta = SGD(network.parameters(), lr=0.1), build_batch(inputs[8:], labels[8:])
    return Scene(problem, optimizer, build_batch(inputs[:8], labels[:8]), meta, num_steps=3, num_passes=num_passes)


NETWORKS: dict[str, Callable[[], Scene]] = {
    "dropout and layer norm": lambda: _build_classifier(
        nn.Sequential(nn.Linear(2, 5), nn.LayerNorm(5), nn.Tanh(), nn.Dropout(0.4), nn.Linear(5, 2))
    ),
    "batch norm, two passes": lambda: _build_classifier(
        nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)), num_passes=2
    ),
    "attention": lambda: _build_classifier(_Attention()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_cg_and_neumann_equal_the_dense_solution(name: str) -> None:
    """Far from a minimum, with dropout on: damping makes the system definite."""
    damping = 3.0
    truth = NETWORKS[name]().measure(ExactHypergradient(damping=damping))
    cg = CgHypergradient(FORWARD, num_terms=40, damping=damping, tolerance=1e-13)
    assert relative_error(NETWORKS[name]().measure(cg), truth) < 1e-10
    neumann = NeumannHypergradient(FORWARD, num_terms=300, rate=0.2, damping=damping)
    assert relative_error(NETWORKS[name]().measure(neumann), truth) < 1e-10
    difference = CgHypergradient(FiniteDifferenceRoute(), num_terms=40, damping=damping)
    assert relative_error(NETWORKS[name]().measure(difference), truth) < 1e-5


def test_frozen_and_untouched_parameters_are_left_out() -> None:
    scene = _build_classifier(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)))
    scene.problem.network[0].requires_grad_(False)
    scene.problem = BilevelProblem(scene.problem.network, scene.problem.learned, CPU)
    steps = scene.take_steps(ExactHypergradient())
    assert all(p.grad is None for p in scene.problem.network[0].parameters())
    truth = scene.estimate(ExactHypergradient(damping=1.0), steps).hypergradient[0]
    measured = scene.estimate(CgHypergradient(FORWARD, num_terms=20, damping=1.0, tolerance=0.0), steps)
    torch.testing.assert_close(measured.hypergradient[0], truth, rtol=1e-9, atol=0)


class _HostReads(TorchDispatchMode):
    """Counts the times a number is read from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("route", [FORWARD, FiniteDifferenceRoute()], ids=lambda route: route.name)
@pytest.mark.parametrize("kind", [NeumannHypergradient, CgHypergradient])
def test_the_host_waits_for_no_number(kind: type[Implicit], route: AbstractRoute) -> None:
    scene = NETWORKS["dropout and layer norm"]()
    steps = scene.take_steps(method := kind(route))
    with _HostReads() as reads:
        scene.estimate(method, steps)
    assert reads.count == 0


@pytest.mark.parametrize("kind", [NeumannHypergradient, CgHypergradient])
def test_the_ghost_route_is_refused(kind: type[Implicit]) -> None:
    with pytest.raises(OptionsError, match=r"^route: ghost, .* wants forward-mode or finite-difference"):
        kind(GhostRoute())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NeumannHypergradient(FORWARD, num_terms=-1), "num_terms: -1; wanted 0 or more"),
        (lambda: NeumannHypergradient(FORWARD, rate=0.0), "rate: 0.0; wanted above 0, or None for the optimizer's own"),
        (lambda: NeumannHypergradient(FORWARD, damping=float("nan")), "damping: nan; wanted 0 or more"),
        (lambda: CgHypergradient(FORWARD, num_terms=-2), "num_terms: -2; wanted 0 or more"),
        (lambda: CgHypergradient(FORWARD, damping=-0.1), "damping: -0.1; wanted 0 or more"),
        (lambda: CgHypergradient(FORWARD, tolerance=-1.0), "tolerance: -1.0; wanted 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(build: Callable[[], AbstractHypergradient], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        build()
    assert str(caught.value) == message


def test_exact_refuses_a_network_too_large_for_a_dense_hessian() -> None:
    scene = _build_classifier(nn.Sequential(nn.Linear(2, 1200), nn.Linear(1200, 2)))
    with pytest.raises(NetworkError, match=r"^network: 6,002 trainable parameters; .* wants at most 5,000"):
        scene.measure(ExactHypergradient())


def test_exact_refuses_a_singular_hessian() -> None:
    with pytest.raises(NetworkError, match=r"Hessian of its base loss is singular with damping 0\.0; wanted more"):
        _build_bent(np.array([1.0, 0.0])).measure(ExactHypergradient())
