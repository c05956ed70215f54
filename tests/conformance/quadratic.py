"""Quadratic base losses: every answer is a line of algebra.

Isotropic: l_i = 1/2 ||theta - x_i||^2 with coefficients c_i = B p_i, p = softmax(lambda), so L_base = sum_i p_i l_i has
the Hessian I and its minimum at m = sum_i p_i x_i. With L_meta = 1/2 mean_j ||theta - z_j||^2 every method comes to
h_k = f p_k (theta' - z) . (x_k - m), z the mean of the z_j, and f the derivative of theta' with respect to m as the
method sees it.

Ridge: l_i = 1/2 (x_i . theta - y_i)^2, c_i = exp(lambda_i), and weight decay in the optimizer; at the minimum.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from sama_core.batch import Batch
from sama_core.losses import LossFunction
from sama_core.problem import BilevelProblem
from tests.conformance.row import EVERY, IMPLICIT, PLAIN, STEP, UNROLLED, Row
from tests.conformance.scene import CPU, Array, Scene, TableLearned, build_batch, build_linear

START = np.array([[0.7, -0.2, 1.5]])
POINTS = np.array([[1.0, -0.5, 0.2], [0.3, 2.0, -1.0], [-1.2, 0.7, 0.4], [0.8, 0.1, 1.3]])
META_POINTS = np.array([[0.9, -0.2, 0.5], [-0.4, 1.1, 0.3]])
LOGITS = np.array([0.3, -0.7, 0.1, 1.1])

RIDGE_X = np.array([[1.0, -0.5], [0.3, 2.0], [-1.2, 0.7], [0.8, 0.1], [0.4, -1.1]])
RIDGE_Y = np.array([0.5, -1.0, 0.3, 1.4, 0.9])
RIDGE_META_X, RIDGE_META_Y = np.array([[0.9, -0.2], [-0.4, 1.1]]), np.array([0.6, 0.2])
RIDGE_LOGITS, DECAY = np.array([0.3, -0.7, 0.1, 0.5, -0.2]), 0.1


def distances_to(targets: Array) -> LossFunction:
    """Return l_i = 1/2 ||output_i - target_i||^2, the targets found by row number."""
    table = torch.tensor(targets)

    def terms(outputs: Tensor, batch: Batch) -> Tensor:
        return 0.5 * (outputs - table[batch.rows]).square().sum(1)

    return terms


def mean_of(terms: LossFunction) -> LossFunction:
    """Return the mean of the terms as a meta loss."""
    return lambda outputs, batch: terms(outputs, batch).mean()


def _shares(logits: Array) -> Array:
    return np.exp(logits) / np.exp(logits).sum()


def _minimum(logits: Array) -> Array:
    return _shares(logits) @ POINTS


def _build_isotropic(rate: float, num_steps: int, **settings: float | bool) -> Scene:
    """theta is the weight of a layer that is shown 1s: its outputs are theta for every example."""
    network = build_linear(START.T)
    learned = TableLearned(LOGITS, lambda values: len(values) * values.softmax(0), distances_to(POINTS))
    problem = BilevelProblem(network, learned, CPU, meta_loss=mean_of(distances_to(META_POINTS)))
    optimizer = SGD(network.parameters(), lr=rate, **settings)
    batch, meta = build_batch(np.ones((4, 1))), build_batch(np.ones((2, 1)))
    return Scene(problem, optimizer, batch, meta, num_steps)


class _Sum(nn.Module):
    """theta = first + second, both parameters. Autograd gives their gradients as one and the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor(START[0]))
        self.second = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.first + self.second).expand(len(inputs), 3)


def _build_sum(rates: tuple[float, float]) -> Scene:
    scene, network = _build_isotropic(rates[0], 1), _Sum()
    scene.problem = BilevelProblem(network, scene.problem.learned, CPU, meta_loss=scene.problem.meta_loss)
    scene.optimizer = SGD([{"params": [network.first]}, {"params": [network.second], "lr": rates[1]}], lr=rates[0])
    return scene


def build_sum_row(rates: tuple[float, float], damping: float) -> Row:
    """Return the row of theta in two parts, each in a group of its own: the Hessian is I in all four of its blocks."""
    after = partial(_descend, rate=sum(rates), num_steps=1, momentum=0.0, dampening=0.0, nesterov=False)
    shape = _shares(LOGITS) * ((POINTS - _minimum(LOGITS)) @ (after(LOGITS) - META_POINTS.mean(0)))
    step = sum(rates) * shape
    return Row(
        name="isotropic quadratic in the sum of two parameters",
        build=partial(_build_sum, rates),
        start=LOGITS,
        answers={STEP: step, PLAIN: step, EVERY: step, UNROLLED: step, IMPLICIT: 2 / (2 + damping) * shape},
        replays={STEP: lambda logits: _meta_loss(after(logits))},
        damping=damping,
        rate=0.4,
        num_terms=150,
        is_layered=False,
    )


def _descend(logits: Array, rate: float, num_steps: int, momentum: float, dampening: float, *, nesterov: bool) -> Array:
    theta, built = START[0], np.zeros(3)
    for step in range(num_steps):
        gradient = theta - _minimum(logits)
        built = gradient if step == 0 else momentum * built + (1 - dampening) * gradient
        theta = theta - rate * (gradient + momentum * built if nesterov else built)
    return theta


def _meta_loss(theta: Array) -> float:
    return float(0.5 * ((theta - META_POINTS) ** 2).sum(1).mean())


def build_isotropic_row(
    name: str, rate: float, num_steps: int, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False
) -> Row:
    """Return a row of one step, or of two steps with momentum; one factor f for each family."""
    settings = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    after = partial(_descend, rate=rate, num_steps=num_steps, **settings)
    theta, minimum = after(LOGITS), _minimum(LOGITS)
    shape = _shares(LOGITS) * ((POINTS - minimum) @ (theta - META_POINTS.mean(0)))
    # What a later step takes of a fresh gradient; and what the second step takes of the first one's once more.
    fresh, kept = 1 - dampening, momentum
    last = fresh if num_steps == 2 else 1.0
    if nesterov:
        last, kept = 1 + momentum * last, momentum * momentum
    factors = {STEP: rate * last, PLAIN: rate, IMPLICIT: 1.0, UNROLLED: rate * last}
    if num_steps == 2:
        first = 1 + momentum if nesterov else 1.0
        # theta1 = theta0 - rate first g0 and theta2 = theta1 - rate (last g1 + kept g0), with g = theta - m.
        factors[UNROLLED] = 1 - ((1 - rate * last) * (1 - rate * first) - rate * kept)
        if dampening == 0 and not nesterov:
            factors[EVERY] = rate * (
                1 + (1 + momentum)
            )  # the last step's share, and the first's with what it carried on
    else:
        factors[EVERY] = factors[STEP]
    return Row(
        name=name,
        build=partial(_build_isotropic, rate, num_steps, **settings),
        start=LOGITS,
        answers={family: factor * shape for family, factor in factors.items()},
        replays={UNROLLED: lambda logits: _meta_loss(after(logits))},
        rate=1.0,
    )


def solve_ridge(logits: Array) -> Array:
    """Return the minimum of the weighted ridge regression."""
    weighted = RIDGE_X.T * np.exp(logits) / len(RIDGE_Y)
    solution: Array = np.linalg.solve(weighted @ RIDGE_X + DECAY * np.eye(2), weighted @ RIDGE_Y)
    return solution


def _ridge_meta_loss(logits: Array) -> float:
    return float(0.5 * ((RIDGE_META_X @ solve_ridge(logits) - RIDGE_META_Y) ** 2).mean())


def _build_ridge(rate: float) -> Scene:
    network = build_linear(solve_ridge(RIDGE_LOGITS)[None])
    learned = TableLearned(RIDGE_LOGITS, torch.exp, distances_to(RIDGE_Y[:, None]))
    problem = BilevelProblem(network, learned, CPU, meta_loss=mean_of(distances_to(RIDGE_META_Y[:, None])))
    optimizer = SGD(network.parameters(), lr=rate, weight_decay=DECAY)
    return Scene(problem, optimizer, build_batch(RIDGE_X), build_batch(RIDGE_META_X))


def ridge_hessian() -> Array:
    """Return the Hessian of the base loss, without the decay."""
    hessian: Array = RIDGE_X.T * np.exp(RIDGE_LOGITS) @ RIDGE_X / len(RIDGE_Y)
    return hessian


def build_ridge_row() -> Row:
    """Return the row at the minimum, where a step does not move: there the implicit answer is the true derivative."""
    rate, theta = 0.5, solve_ridge(RIDGE_LOGITS)
    meta_gradient = RIDGE_META_X.T @ (RIDGE_META_X @ theta - RIDGE_META_Y) / len(RIDGE_META_Y)
    residuals = RIDGE_X @ theta - RIDGE_Y

    def pull(direction: Array) -> Array:
        answer: Array = -np.exp(RIDGE_LOGITS) * residuals * (RIDGE_X @ direction) / len(RIDGE_Y)
        return answer

    step = pull(rate * meta_gradient)
    implicit = pull(np.linalg.solve(ridge_hessian() + DECAY * np.eye(2), meta_gradient))
    return Row(
        name="ridge regression at its minimum",
        build=partial(_build_ridge, rate),
        start=RIDGE_LOGITS,
        answers={STEP: step, PLAIN: step, UNROLLED: step, IMPLICIT: implicit},
        replays={IMPLICIT: _ridge_meta_loss},
        damping=DECAY,
        num_terms=150,
    )


ROWS = (
    build_isotropic_row("isotropic quadratic, one step to the minimum", 1.0, 1),
    build_isotropic_row("isotropic quadratic, one short step", 0.3, 1),
    build_isotropic_row("isotropic quadratic, second step with momentum", 0.3, 2, momentum=0.5),
    build_isotropic_row("isotropic quadratic, second step damped", 0.3, 2, momentum=0.5, dampening=0.4),
    build_isotropic_row("isotropic quadratic, second Nesterov step", 0.3, 2, momentum=0.5, nesterov=True),
    build_sum_row((0.2, 0.3), damping=0.5),
    build_ridge_row(),
)
