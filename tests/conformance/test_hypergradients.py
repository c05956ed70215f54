"""Every hypergradient method against problems whose answer is known in closed form.

A linear network without bias, squared out by hand: logits = W x, so grad l_i = (p_i - onehot_i) x_i^T.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from sama_core.hypergradient.contract import AbstractHypergradient
from sama_core.hypergradient.directional import FiniteDifferenceRoute, ForwardModeRoute
from sama_core.hypergradient.exact import ExactHypergradient
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.meta.example_logits import ExampleLogits
from sama_core.problem import Batch, BilevelProblem
from tests.sama_core.problems import CPU, take_base_step

Array = NDArray[np.float64]

METHODS: dict[str, tuple[AbstractHypergradient, float]] = {
    "sama forward-mode": (SamaHypergradient(ForwardModeRoute()), 1e-10),
    "sama finite-difference": (SamaHypergradient(FiniteDifferenceRoute()), 1e-5),
    "exact": (ExactHypergradient(), 1e-10),
}

X = np.array([[1.0, -0.5], [0.3, 2.0], [-1.2, 0.7], [0.8, 0.1]])
Y = np.array([0, 1, 1, 0])
META_X, META_Y = np.array([[0.9, -0.2], [-0.4, 1.1]]), np.array([0, 1])
WEIGHT = np.array([[0.2, -0.1], [0.4, 0.3]])
LOGITS = np.array([0.3, -0.7, 0.0, 1.1])


def _gradients(weight: Array, inputs: Array, labels: NDArray[np.int64]) -> Array:
    """Return the gradient of each example's loss (B, C, D)."""
    logits = inputs @ weight.T
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (shares - np.eye(2)[labels])[:, :, None] * inputs[:, None, :]


def _answer(update: str, rate: float) -> Array:
    """Return dL_meta/dlogits, written out by hand for one first step of the optimizer."""
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    weights, slopes = 2 * sigmoid, 2 * sigmoid * (1 - sigmoid)
    per_example = _gradients(WEIGHT, X, Y)
    gradient = (weights[:, None, None] * per_example).mean(0)
    if update == "sgd":
        adaptation, after = np.full_like(WEIGHT, rate), WEIGHT - rate * gradient
    else:  # the first step of Adam: u = rate * g / (|g| + eps), so du/dg = rate * eps / (|g| + eps)^2
        epsilon = 1e-2
        adaptation = rate * epsilon / (np.abs(gradient) + epsilon) ** 2
        after = WEIGHT - rate * gradient / (np.abs(gradient) + epsilon)
    direction = adaptation * _gradients(after, META_X, META_Y).mean(0)
    return -slopes * (per_example * direction).sum((1, 2)) / len(X)


def _optimizer(update: str, rate: float, network: nn.Module) -> Optimizer:
    if update == "sgd":
        return SGD(network.parameters(), lr=rate)
    return Adam(network.parameters(), lr=rate, eps=1e-2)


@pytest.mark.parametrize("update", ["sgd", "adam"])
@pytest.mark.parametrize("rate", [0.01, 0.5])
@pytest.mark.parametrize("name", METHODS)
def test_method_meets_the_closed_form(name: str, update: str, rate: float) -> None:
    method, tolerance = METHODS[name]
    network = nn.Linear(2, 2, bias=False).double()
    learned = ExampleLogits(4).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor(WEIGHT))
        learned.logits.copy_(torch.tensor(LOGITS))
    problem = BilevelProblem(network, learned, CPU)
    optimizer = _optimizer(update, rate, network)
    batch = Batch(torch.arange(4), torch.tensor(X), torch.tensor(Y), seed=1)
    meta = Batch(torch.arange(2), torch.tensor(META_X), torch.tensor(META_Y), seed=2)
    base = take_base_step(problem, optimizer, batch, torch.zeros(4, 1, dtype=torch.float64), method)
    measured = method.estimate(problem, optimizer, base, meta).hypergradient[0].numpy()
    truth = _answer(update, rate)
    assert np.linalg.norm(measured - truth) < tolerance * np.linalg.norm(truth)


@pytest.mark.parametrize("name", METHODS)
def test_method_edits_nothing_of_the_callers(name: str) -> None:
    method, _ = METHODS[name]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    problem = BilevelProblem(network, ExampleLogits(4).double(), CPU)
    optimizer = Adam(network.parameters(), lr=0.01)
    batch = Batch(torch.arange(4), torch.tensor(X), torch.tensor(Y), seed=1)
    base = take_base_step(problem, optimizer, batch, torch.zeros(4, 1, dtype=torch.float64), method)
    owned = {
        **network.state_dict(),
        **{f"gradient of {key}": p.grad for key, p in network.named_parameters()},
        **{f"{key} of {i}": v for i, s in optimizer.state_dict()["state"].items() for key, v in s.items()},
        **{f"before {key}": value for key, value in base.snapshot.optimizer.params.items()},
        "learned": problem.learned.state_dict()["logits"],
    }
    before = {key: value.clone() for key, value in owned.items()}
    method.estimate(problem, optimizer, base, Batch(torch.arange(4), torch.tensor(X), torch.tensor(Y), 3))
    changed = [key for key, value in owned.items() if not torch.equal(value, before[key])]
    assert changed == []
    assert problem.learned.logits.grad is None
