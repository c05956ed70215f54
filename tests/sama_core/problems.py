"""Small problems for the numerics: networks, data, and one base step taken by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep
from sama_core.hypergradient.exact import ExactHypergradient
from sama_core.learned import AbstractLearned
from sama_core.meta.example_logits import ExampleLogits
from sama_core.meta.weight_network import WeightNetwork
from sama_core.problem import Batch, BilevelProblem, compute_losses
from sama_core.randomness import seed_device
from sama_core.types import TensorExamples

CPU = torch.device("cpu")
NUM_FEATURES, NUM_CLASSES, NUM_INPUTS, NUM_ROWS = 4, 3, 5, 20

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda params: SGD(params, lr=0.1),
    "sgd-decay": lambda params: SGD(params, lr=0.1, weight_decay=0.3),
    "sgd-momentum": lambda params: SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1),
    "sgd-dampening": lambda params: SGD(params, lr=0.1, momentum=0.8, dampening=0.4),
    "sgd-nesterov": lambda params: SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd-fused": lambda params: SGD(params, lr=0.1, momentum=0.9, fused=True),
    "adam": lambda params: Adam(params, lr=0.01),
    "adam-coupled-decay": lambda params: Adam(params, lr=0.01, weight_decay=0.2, betas=(0.8, 0.95), eps=1e-4),
    "adam-foreach": lambda params: Adam(params, lr=0.01, foreach=True),
    "adamw": lambda params: AdamW(params, lr=0.01, weight_decay=0.2),
    "adamw-fused": lambda params: AdamW(params, lr=0.01, weight_decay=0.2, fused=True),
}


def build_network(norm: str = "layer", dropout: float = 0.3) -> nn.Sequential:
    """Return a float64 network with dropout and layer or batch normalisation."""
    layer = nn.BatchNorm1d(8) if norm == "batch" else nn.LayerNorm(8)
    parts = (nn.Linear(NUM_INPUTS, 8), layer, nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, NUM_CLASSES))
    return nn.Sequential(*parts).double()


def build_learned(kind: str) -> AbstractLearned:
    """Return a learned part away from its neutral start, float64."""
    learned = ExampleLogits(NUM_ROWS) if kind == "logits" else WeightNetwork(NUM_FEATURES, width=6)
    for param in learned.parameters():
        nn.init.normal_(param, std=0.5)
    return learned.double()


def draw_batch(size: int, seed: int) -> Batch:
    """Return a random batch of distinct rows."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, NUM_INPUTS, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, NUM_CLASSES, (size,), generator=generator)
    return Batch(torch.randperm(NUM_ROWS, generator=generator)[:size], inputs, labels, seed)


def draw_features(size: int, seed: int) -> Tensor:
    """Return random features (B, F)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, NUM_FEATURES, generator=generator, dtype=torch.float64)


def take_base_step(
    problem: BilevelProblem,
    optimizer: Optimizer,
    batch: Batch,
    features: Tensor,
    method: AbstractHypergradient | None = None,
) -> BaseStep:
    """Do one real base step and return what it leaves."""
    snapshot = (method or ExactHypergradient()).prepare(problem, optimizer)
    seed_device(batch.seed, CPU)
    losses = compute_losses(problem.network(batch.inputs), batch.labels)
    optimizer.zero_grad()
    (problem.weigh(batch.rows, features).detach() * losses).mean().backward()
    optimizer.step()
    return BaseStep(snapshot, batch, features)


@dataclass
class Scene:
    """A base step just done, and the meta batch that judges it."""

    problem: BilevelProblem
    optimizer: Optimizer
    base: BaseStep
    meta: Batch

    def measure(self, method: AbstractHypergradient) -> Tensor:
        """Return the hypergradient as one flat vector."""
        estimate = method.estimate(self.problem, self.optimizer, self.base, self.meta)
        return torch.cat([part.flatten() for part in estimate.hypergradient])


def build_scene(
    optimizer: str = "adamw",
    learned: str = "network",
    norm: str = "layer",
    num_steps: int = 4,
    network: nn.Module | None = None,
) -> Scene:
    """Return the scene after ``num_steps`` base steps on random batches."""
    torch.manual_seed(0)
    chosen = build_network(norm) if network is None else network
    problem = BilevelProblem(chosen, build_learned(learned), CPU)
    base_optimizer = OPTIMIZERS[optimizer](chosen.parameters())
    for step in range(num_steps):
        batch = draw_batch(8, seed=step)
        base = take_base_step(problem, base_optimizer, batch, draw_features(8, seed=step))
    return Scene(problem, base_optimizer, base, draw_batch(6, seed=1000))


def relative_error(estimate: Tensor, truth: Tensor) -> float:
    """Return ||estimate - truth|| / ||truth||."""
    return float((estimate - truth).norm() / truth.norm())


def build_examples(num_rows: int = 48, seed: int = 0, flipped: float = 0.0) -> TensorExamples:
    """Return three separable classes in the plane, float32, a share of the labels moved on by one."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % NUM_CLASSES
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    inputs = centres[labels] + 0.5 * torch.randn(num_rows, 2, generator=generator)
    moved = torch.rand(num_rows, generator=generator) < flipped
    return TensorExamples(inputs, torch.where(moved, (labels + 1) % NUM_CLASSES, labels), NUM_CLASSES)


def build_small_network(seed: int = 0) -> nn.Sequential:
    """Return a float32 network for the plane, with BatchNorm and dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, NUM_CLASSES))
