"""Small problems for the numerics: networks, data, and one base step taken by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from sama_core.adaptation.clipping import Clipping
from sama_core.batch import Batch, split_batch
from sama_core.evidence import Evidence
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate, Piece
from sama_core.learned import AbstractLearned
from sama_core.losses import mean_loss
from sama_core.meta.example_logits import ExampleLogits
from sama_core.meta.weight_network import WeightNetwork
from sama_core.problem import BilevelProblem
from sama_core.randomness import seed_device
from sama_core.tensors import clone_buffers
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


def draw_evidence(batch: Batch) -> Evidence:
    """Return random evidence on a batch."""
    generator = torch.Generator().manual_seed(batch.seed)
    size = len(batch.labels)
    features = torch.randn(size, NUM_FEATURES, generator=generator, dtype=torch.float64)
    predictions = torch.rand(size, NUM_CLASSES, generator=generator, dtype=torch.float64).softmax(1)
    return Evidence(batch.rows, batch.labels, features, predictions)


def take_base_step(
    problem: BilevelProblem,
    optimizer: Optimizer,
    batch: Batch,
    method: AbstractHypergradient,
    *,
    num_pieces: int = 1,
    is_first: bool = True,
    is_last: bool = True,
    clip_norm: float | None = None,
) -> BaseStep:
    """Do one real base step, recorded for ``method``, and return what it leaves."""
    snapshot = method.prepare(optimizer, is_first=is_first, is_last=is_last)
    optimizer.zero_grad()
    pieces = []
    for part in split_batch(batch, num_pieces) if num_pieces > 1 else [batch]:
        buffers, evidence = clone_buffers(problem.network), draw_evidence(part)
        with method.record(problem) as recording:
            seed_device(part.seed, CPU)
            losses = problem.learned.losses(problem.network(part.inputs), part)
            (mean_loss(problem.weigh(evidence).detach(), losses) * part.share).backward()
        pieces.append(Piece(part, evidence, losses.detach(), buffers, len(batch.labels), recording))
    clipping = None
    if clip_norm is not None:
        norm = nn.utils.clip_grad_norm_(list(problem.params.values()), clip_norm)
        clipping = Clipping(clip_norm, norm)
    optimizer.step()
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return BaseStep(pieces, settings, snapshot, clipping)


@dataclass(frozen=True)
class Scene:
    """A short training, told so that every method can live through the very same one.

    Attributes:
        optimizer: a name of ``OPTIMIZERS``, or what builds one from parameters.
        learned: kind of what is learned.
        network: builds the base network, under a fixed seed.
        num_steps: base steps in all.
        unroll_steps: of them, those since the last meta step.
        num_pieces: passes of each base step.
        clip_norm: limit of the gradient's norm.
    """

    optimizer: str | Callable[..., Optimizer] = "adamw"
    learned: str = "network"
    network: Callable[[], nn.Module] = build_network
    num_steps: int = 4
    unroll_steps: int = 1
    num_pieces: int = 1
    clip_norm: float | None = None
    draw: Callable[[int, int], Batch] = draw_batch

    def run(self, method: AbstractHypergradient) -> HypergradientEstimate:
        """Train, and return the method's estimate at the end."""
        torch.manual_seed(0)
        network = self.network()
        problem = BilevelProblem(network, build_learned(self.learned), CPU)
        build = OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer
        optimizer = build([p for p in network.parameters() if p.requires_grad])
        window: list[BaseStep] = []
        for number in range(self.num_steps):
            done = take_base_step(
                problem,
                optimizer,
                self.draw(8, number),
                method,
                num_pieces=self.num_pieces,
                clip_norm=self.clip_norm,
                is_first=number == self.num_steps - self.unroll_steps,
                is_last=number == self.num_steps - 1,
            )
            if number >= self.num_steps - self.unroll_steps:
                window.append(done)
        return method.estimate(problem, optimizer, window, self.draw(6, 1000))

    def measure(self, method: AbstractHypergradient) -> Tensor:
        """Return the hypergradient at the end as one flat vector."""
        return torch.cat([part.flatten() for part in self.run(method).hypergradient])


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
