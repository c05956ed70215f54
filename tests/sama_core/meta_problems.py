"""Small problems for what the meta level learns: every kind, one watched base step, and a short solve by hand.

Shape suffixes: B examples of a batch, C classes, K losses of an example.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import Adam, AdamW, Optimizer

from sama_core.batch import Batch
from sama_core.evidence import Evidence
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, Piece
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.learned import AbstractLearned
from sama_core.meta.combination import CombinedLearned
from sama_core.meta.example_logits import ExampleLogits
from sama_core.meta.label_corrector import LabelCorrector
from sama_core.meta.source_weights import SourceWeights
from sama_core.meta.task_weights import TaskWeights
from sama_core.meta.weight_network import WeightNetwork
from sama_core.problem import BilevelProblem
from sama_core.randomness import isolated_randomness
from sama_core.tensors import clone_buffers
from tests.sama_core.problems import NUM_CLASSES, NUM_FEATURES, NUM_INPUTS, NUM_ROWS

CPU = torch.device("cpu")
NUM_SOURCES, NUM_TASKS = 3, 3


class TwoHeads(nn.Module):
    """A trunk with dropout, a head for the classes and one that gives the inputs back."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(NUM_INPUTS, 8), nn.LayerNorm(8), nn.Tanh(), nn.Dropout(0.3))
        self.main, self.auxiliary = nn.Linear(8, NUM_CLASSES), nn.Linear(8, NUM_INPUTS)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        units = self.trunk(inputs)
        return self.main(units), self.auxiliary(units)


def read_main(outputs: tuple[Tensor, Tensor]) -> Tensor:
    return outputs[0]


def lose_tasks(outputs: tuple[Tensor, Tensor], batch: Batch) -> Tensor:
    """Return the loss of the label, of the rebuilt inputs, and of the wrong label (B, K)."""
    main = cross_entropy(outputs[0], batch.labels, reduction="none")
    rebuilt = mse_loss(outputs[1], batch.inputs, reduction="none").mean(1)
    wrong = cross_entropy(outputs[0], (batch.labels + 1) % outputs[0].shape[1], reduction="none")
    return torch.stack((main, rebuilt, wrong), dim=1)


def lose_main(outputs: Any, batch: Batch) -> Tensor:
    return cross_entropy(outputs[0] if isinstance(outputs, tuple) else outputs, batch.labels)


def number_sources() -> Tensor:
    return torch.arange(NUM_ROWS) % NUM_SOURCES


BUILDERS: dict[str, Callable[[], AbstractLearned]] = {
    "network": lambda: WeightNetwork(NUM_FEATURES, width=6),
    "network over sources": lambda: WeightNetwork(NUM_FEATURES, NUM_CLASSES, width=6, sources=number_sources()),
    "logits": lambda: ExampleLogits(NUM_ROWS),
    "sources": lambda: SourceWeights(number_sources(), NUM_SOURCES),
    "corrector": lambda: LabelCorrector(NUM_FEATURES, NUM_CLASSES, width=6),
    "corrector without confusion": lambda: LabelCorrector(NUM_FEATURES, NUM_CLASSES, width=6, confusion=False),
    "tasks": lambda: TaskWeights(NUM_TASKS, lose_tasks, NUM_FEATURES, width=6, main_logits=read_main),
    "network x sources": lambda: CombinedLearned([BUILDERS["network"](), BUILDERS["sources"]()]),
    "network x sources x corrector": lambda: CombinedLearned(
        [BUILDERS["network"](), BUILDERS["sources"](), BUILDERS["corrector"]()]
    ),
    "logits x tasks": lambda: CombinedLearned([BUILDERS["logits"](), BUILDERS["tasks"]()]),
}


def build_meta(name: str, std: float = 0.5) -> AbstractLearned:
    """Return what is learned, away from its neutral start (unless ``std`` is 0), float64."""
    torch.manual_seed(1)
    learned = BUILDERS[name]()
    if std:
        for param in learned.parameters():
            nn.init.normal_(param, std=std)
    return learned.double()


def build_theta(name: str) -> nn.Module:
    """Return a float64 network with dropout, with two heads where there are several tasks."""
    torch.manual_seed(0)
    network = TwoHeads()
    return (network if "tasks" in name else nn.Sequential(network.trunk, network.main)).double()


def draw_evidence(batch: Batch) -> Evidence:
    """Return random features and predictions for a batch."""
    generator = torch.Generator().manual_seed(batch.seed)
    features = torch.randn(len(batch.rows), NUM_FEATURES, generator=generator, dtype=torch.float64)
    logits = 2.0 * torch.randn(len(batch.rows), NUM_CLASSES, generator=generator, dtype=torch.float64)
    return Evidence(batch.rows, batch.labels, features, logits.softmax(1))


Observer = Callable[[Batch, Tensor], Evidence]
"""Takes a batch and its class scores (B, C), gives the evidence."""


def take_step(
    problem: BilevelProblem, optimizer: Optimizer, batch: Batch, observe: Observer, method: AbstractHypergradient
) -> BaseStep:
    """Do one real base step and return what it leaves."""
    snapshot = method.prepare(optimizer, is_first=True, is_last=True)
    buffers = clone_buffers(problem.network)
    with method.record(problem) as recording:
        outputs = problem.call(problem.params, dict(problem.network.named_buffers()), batch)
        losses = problem.learned.losses(outputs, batch)
        evidence = observe(batch, problem.learned.logits(outputs).detach())
        optimizer.zero_grad()
        ((problem.weigh(evidence).detach() * losses).sum() / len(batch.rows)).backward()
    optimizer.step()
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    piece = Piece(batch, evidence, losses.detach(), buffers, len(batch.rows), recording)
    return BaseStep([piece], settings, snapshot)


def differentiate_adamw(problem: BilevelProblem, optimizer: AdamW, batch: Batch, meta: Batch) -> list[Tensor]:
    """Return the hypergradient through the AdamW step to come, by autograd, with the update written out."""
    group, after = optimizer.param_groups[0], {}
    beta1, beta2 = group["betas"]
    loss = problem.weigh(draw_evidence(batch)) * problem.evaluate(problem.params, {}, batch)
    gradients = torch.autograd.grad(loss.sum() / len(batch.rows), list(problem.params.values()), create_graph=True)
    for (name, param), gradient in zip(problem.params.items(), gradients, strict=True):
        state = optimizer.state[param]
        step = float(state["step"]) + 1
        first = beta1 * state["exp_avg"] + (1 - beta1) * gradient
        second = beta2 * state["exp_avg_sq"] + (1 - beta2) * gradient.square()
        update = (first / (1 - beta1**step)) / ((second / (1 - beta2**step)).sqrt() + group["eps"])
        after[name] = param.detach() * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * update
    meta_loss = problem.evaluate_meta(after, {}, meta)
    return list(torch.autograd.grad(meta_loss, list(problem.learned.parameters())))


@dataclass
class Toy:
    """A data set with known truth, three classes in the plane, and a short solve on it.

    Attributes:
        given: the labels as delivered, (N,).
    """

    num_rows: int = 240
    num_trusted: int = 30
    inputs: Tensor = field(init=False)
    truth: Tensor = field(init=False)
    given: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        num_all = self.num_rows + self.num_trusted
        truth = torch.arange(num_all) % NUM_CLASSES
        centres = torch.tensor([[1.6, 0.0], [-0.8, 1.4], [-0.8, -1.4]])
        points = centres[truth] + 0.5 * torch.randn(num_all, 2, generator=generator)
        self.inputs, self.trusted_inputs = points.split((self.num_rows, self.num_trusted))
        self.truth, self.trusted_labels = truth.split((self.num_rows, self.num_trusted))
        self.given = self.truth.clone()

    def batch(self, rows: Tensor) -> Batch:
        return Batch(rows, self.inputs[rows], self.given[rows], seed=0)

    def observe(self, batch: Batch, logits: Tensor) -> Evidence:
        """Return the loss of the given label and the certainty of the prediction as features."""
        losses = cross_entropy(logits, batch.labels, reduction="none").log1p()
        predictions = logits.softmax(1)
        features = torch.stack((losses - 0.7, 2.0 * predictions.amax(1) - 1.3), dim=1)
        return Evidence(batch.rows, batch.labels, features, predictions)

    def solve(self, learned: AbstractLearned, num_steps: int, meta_lr: float = 0.03) -> BilevelProblem:
        """Alternate base and meta steps and return the problem as it ends."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, NUM_CLASSES))
        problem = BilevelProblem(network, learned, CPU)
        optimizer, meta_optimizer = AdamW(network.parameters(), lr=0.01), Adam(learned.parameters(), lr=meta_lr)
        method = SamaHypergradient(ForwardModeRoute())
        meta = Batch(torch.arange(self.num_trusted), self.trusted_inputs, self.trusted_labels, seed=0)
        generator = torch.Generator().manual_seed(4)
        with isolated_randomness(CPU):
            for step in range(num_steps):
                batch = self.batch(torch.randperm(self.num_rows, generator=generator)[:64])
                done = take_step(problem, optimizer, batch, self.observe, method)
                if step < 10:
                    continue
                estimate = method.estimate(problem, optimizer, [done], meta)
                for param, gradient in zip(learned.parameters(), estimate.hypergradient, strict=True):
                    param.grad = gradient
                meta_optimizer.step()
        return problem

    @torch.no_grad()
    def recall(self, problem: BilevelProblem) -> Evidence:
        """Return the evidence of every row at the end of a solve."""
        batch = self.batch(torch.arange(self.num_rows))
        return self.observe(batch, problem.learned.logits(problem.network(batch.inputs)))
