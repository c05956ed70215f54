"""A small bilevel problem with everything of it in sight, and the base steps taken on it by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from sama_core.batch import Batch, split_batch
from sama_core.evidence import Evidence
from sama_core.exchange import AbstractExchange, Alone
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate, Piece
from sama_core.learned import AbstractLearned
from sama_core.losses import LossFunction
from sama_core.problem import BilevelProblem
from sama_core.randomness import seed_device
from sama_core.tensors import clone_buffers

Array = NDArray[np.float64]
CPU, ALONE = torch.device("cpu"), Alone()


class TableLearned(AbstractLearned):
    """One row of free numbers an example, and any function of them as the coefficients of any loss terms."""

    kind = "table"
    is_positive = True

    def __init__(self, values: Array, coefficients: Callable[[Tensor], Tensor], terms: LossFunction) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))
        self._coefficients, self._terms = coefficients, terms

    def forward(self, evidence: Evidence) -> Tensor:
        return self._coefficients(self.values[evidence.rows])

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        return self._terms(outputs, batch)


@dataclass
class Scene:
    """A problem before its base steps: each takes ``batch``, in so many passes, and ``meta`` judges the last one."""

    problem: BilevelProblem
    optimizer: Optimizer
    batch: Batch
    meta: Batch
    num_steps: int = 1
    num_passes: int = 1

    def take_step(self, method: AbstractHypergradient, *, is_first: bool = True, is_last: bool = True) -> BaseStep:
        """Do one real base step and return what it leaves; the evidence is that on the examples of all processes."""
        problem, exchange, num_examples = (
            self.problem,
            self.problem.exchange,
            self.batch.num_joint or len(self.batch.rows),
        )
        snapshot = method.prepare(self.optimizer, is_first=is_first, is_last=is_last)
        self.optimizer.zero_grad()
        pieces = []
        for batch in split_batch(self.batch, self.num_passes, exchange):
            buffers = clone_buffers(problem.network)
            rows, labels = exchange.gather([batch.rows, batch.labels], batch.num_together)
            zeros = torch.zeros(len(rows), 2, dtype=torch.float64)
            evidence = Evidence(rows, labels, zeros, zeros)
            coefficients = exchange.shard(problem.weigh(evidence)).detach()
            with method.record(problem) as recording:
                seed_device(batch.seed, CPU)
                losses = problem.learned.losses(problem.network(batch.inputs), batch)
                ((coefficients * losses).sum() / num_examples).backward()
            pieces.append(Piece(batch, evidence, losses.detach(), buffers, num_examples, recording))
        exchange.add_up([p.grad for p in problem.params.values() if p.grad is not None])
        settings = [{key: v for key, v in group.items() if key != "params"} for group in self.optimizer.param_groups]
        self.optimizer.step()
        return BaseStep(pieces, settings, snapshot)

    def take_steps(self, method: AbstractHypergradient) -> list[BaseStep]:
        """Do the base steps of one meta step."""
        last = self.num_steps - 1
        return [self.take_step(method, is_first=n == 0, is_last=n == last) for n in range(self.num_steps)]

    def estimate(self, method: AbstractHypergradient, steps: Sequence[BaseStep]) -> HypergradientEstimate:
        """Return the method's estimate through these steps."""
        return method.estimate(self.problem, self.optimizer, steps, self.meta)

    def measure(self, method: AbstractHypergradient) -> Array:
        """Return the method's hypergradient after the base steps as one flat vector."""
        return flatten(self.estimate(method, self.take_steps(method)))


def flatten(estimate: HypergradientEstimate) -> Array:
    """Return a hypergradient as one flat vector."""
    return torch.cat([part.flatten() for part in estimate.hypergradient]).numpy()


def relative_error(measured: Array, truth: Array) -> float:
    """Return ||measured - truth|| / ||truth||."""
    return float(np.linalg.norm(measured - truth) / np.linalg.norm(truth))


def build_batch(inputs: Array, labels: NDArray[np.int64] | None = None, exchange: AbstractExchange = ALONE) -> Batch:
    """Return the batch of a whole data set, or this process's part of it."""
    marks = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else torch.tensor(labels)
    rows, seen, given = (exchange.shard(part) for part in (torch.arange(len(inputs)), torch.tensor(inputs), marks))
    return Batch(rows, seen, given, seed=1, num_joint=len(inputs), num_pass=len(inputs))


def build_linear(weight: Array) -> nn.Linear:
    """Return a linear layer without bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer
