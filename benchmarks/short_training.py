"""Short trainings on made-up data, each step of which remembers all that a hypergradient method may want."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from benchmarks.engine.betty import LossWeightNetwork
from sama_core.adaptation.contract import take_snapshot
from sama_core.batch import Batch
from sama_core.evidence import Evidence
from sama_core.features import compute_margins, measure_disagreement
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, Piece
from sama_core.hypergradient.routes.finite_difference import FiniteDifferenceRoute
from sama_core.hypergradient.routes.ghost import GhostRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.learned import AbstractLearned
from sama_core.losses import given_label_losses, mean_loss
from sama_core.meta.weight_network import WeightNetwork
from sama_core.problem import BilevelProblem
from sama_core.randomness import make_generator, seed_device
from sama_core.tensors import clone_buffers

CPU = torch.device("cpu")
NUM_ROWS, NUM_META, BATCH_SIZE = 512, 128, 32
NUM_CLASSES, NUM_INPUTS, NUM_WORDS = 5, 10, 120


class LossAlone(AbstractLearned):
    """The weight network of the published examples: one raw feature, the loss; weights between 0 and 1."""

    kind = "loss-alone"
    is_positive = True

    def __init__(self) -> None:
        super().__init__()
        self.layers = LossWeightNetwork()

    def forward(self, evidence: Evidence) -> Tensor:
        weights: Tensor = self.layers(evidence.features).squeeze(1)
        return weights


class Words(nn.Module):
    """A classifier of the mean of the words' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(NUM_WORDS, 8)
        self.out = nn.Linear(8, NUM_CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.tanh(self.table(words).mean(1)))
        return logits


def build_layers() -> nn.Module:
    """Return the network of most rows."""
    first, last = nn.Linear(NUM_INPUTS, 32), nn.Linear(32, NUM_CLASSES)
    return nn.Sequential(first, nn.LayerNorm(32), nn.Tanh(), nn.Dropout(0.2), last)


def draw_vectors(labels: Tensor, generator: torch.Generator, *, is_meta: bool) -> Tensor:  # noqa: ARG001
    """Return points around a corner of a cube for each class."""
    corners = torch.eye(NUM_INPUTS, dtype=torch.float64)[:NUM_CLASSES]
    noise = torch.randn(len(labels), NUM_INPUTS, generator=generator, dtype=torch.float64)
    return 2.0 * corners[labels] + noise


def draw_words(labels: Tensor, generator: torch.Generator, *, is_meta: bool) -> Tensor:
    """Return sentences of six words, half of them of the class; the last third of the words is the meta set's alone."""
    known = NUM_WORDS if is_meta else NUM_WORDS * 2 // 3
    words = torch.randint(known, (len(labels), 6), generator=generator)
    words[:, :3] += (labels.unsqueeze(1) - words[:, :3]) % NUM_CLASSES
    return words.clamp_max(known - 1)


@dataclass(frozen=True)
class Scene:
    """What is trained.

    Attributes:
        title: for the table.
        build_optimizer: from the network's parameters.
        build_network: the base network.
        draw: inputs for labels.
        dtype: number format of everything.
        unroll_steps: base steps to a meta step.
        sees_loss_alone: weigh the examples by the raw loss alone.
    """

    title: str
    build_optimizer: Callable[[Sequence[nn.Parameter]], Optimizer]
    build_network: Callable[[], nn.Module] = build_layers
    draw: Callable[..., Tensor] = draw_vectors
    dtype: torch.dtype = torch.float64
    unroll_steps: int = 5
    sees_loss_alone: bool = False


class _JudgedWithDropout(BilevelProblem):
    """The meta loss of a network in training mode."""

    def evaluate_meta(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return self.meta_loss(self.call(params, buffers, batch), batch)


class Training:
    """A training with three of ten labels wrong, whose steps remember all that any method may want.

    Attributes:
        steps: base steps since the last meta step, the newest at the end.
        meta: the meta batch of the last step.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self._generator = make_generator(seed, "departures")
        torch.manual_seed(seed)
        self.network = scene.build_network().to(scene.dtype)
        learned = (LossAlone() if scene.sees_loss_alone else WeightNetwork(4)).to(scene.dtype)
        self.problem = BilevelProblem(self.network, learned, CPU)
        self.noisy = _JudgedWithDropout(self.network, learned, CPU)
        self.optimizer = scene.build_optimizer(list(self.network.parameters()))
        self._meta_optimizer = Adam(learned.parameters(), lr=0.01)
        self._train, self._trusted = self._draw_examples(scene, NUM_ROWS), self._draw_examples(scene, NUM_META)
        self._averages = torch.full((NUM_ROWS, NUM_CLASSES), 1.0 / NUM_CLASSES, dtype=scene.dtype)
        self._moments: tuple[Tensor, Tensor] | None = None
        self._passed = torch.arange(0), torch.zeros(0, NUM_CLASSES)
        self._unroll_steps, self._sees_loss_alone, self._num_done = scene.unroll_steps, scene.sees_loss_alone, 0
        self.steps: list[BaseStep] = []
        self._method, self._ghost = SamaHypergradient(FiniteDifferenceRoute()), GhostRoute()

    def _draw_examples(self, scene: Scene, num_rows: int) -> tuple[Tensor, Tensor]:
        is_meta = num_rows == NUM_META
        labels = torch.randint(NUM_CLASSES, (num_rows,), generator=self._generator)
        inputs = scene.draw(labels, self._generator, is_meta=is_meta)
        wrong = torch.rand(num_rows, generator=self._generator) < (0.0 if is_meta else 0.3)
        return inputs.to(scene.dtype) if inputs.is_floating_point() else inputs, (labels + wrong) % NUM_CLASSES

    def _draw_batch(self, examples: tuple[Tensor, Tensor]) -> Batch:
        rows = torch.randperm(len(examples[1]), generator=self._generator)[:BATCH_SIZE]
        seed = int(torch.randint(2**31, (), generator=self._generator))
        return Batch(rows, examples[0][rows], examples[1][rows], seed)

    def describe(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the features (B, 4): loss, margin, disagreement with the averaged probabilities, averaged p_given.

        They are standardised by the moments of the base pass. Where the weight network sees the loss alone, (B, 1).
        """
        if self._sees_loss_alone:
            return given_label_losses(logits, batch).unsqueeze(1)
        average = self._averages[batch.rows]
        raw = (
            given_label_losses(logits, batch).log1p(),
            compute_margins(logits, batch.labels).asinh(),
            measure_disagreement(logits.softmax(1), average),
            average.gather(1, batch.labels.unsqueeze(1)).squeeze(1),
        )
        features = torch.stack(raw, 1)
        if self._moments is None:
            self._moments = features.mean(0), features.std(0) + 1e-3
        centre, spread = self._moments
        return (features - centre) / spread

    def step(self) -> None:
        """Do one base step, after the meta step that was due."""
        if self._num_done:
            self._remember()
            if self._num_done % self._unroll_steps == 0:
                self._learn()
        batch, self.meta = self._draw_batch(self._train), self._draw_batch(self._trusted)
        snapshot = take_snapshot(self.optimizer, with_params=True, with_states=True)
        self.optimizer.zero_grad()
        is_last = (self._num_done + 1) % self._unroll_steps == 0
        with self._ghost.record(self.problem) if is_last else nullcontext() as recording:
            seed_device(batch.seed, CPU)
            logits = self.network(batch.inputs)
            evidence = self._observe(logits.detach(), batch)
            losses = given_label_losses(logits, batch)
            mean_loss(self.problem.weigh(evidence).detach(), losses).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        piece = Piece(batch, evidence, losses.detach(), clone_buffers(self.network), BATCH_SIZE, recording)
        self._num_done += 1
        self.steps = [*self.steps, BaseStep([piece], settings, snapshot)][-self._unroll_steps :]

    def _observe(self, logits: Tensor, batch: Batch) -> Evidence:
        self._moments = None
        self._passed = batch.rows, logits.softmax(1)
        return Evidence(batch.rows, batch.labels, self.describe(logits, batch), logits.softmax(1))

    def _learn(self) -> None:
        estimate = self._method.estimate(self.problem, self.optimizer, self.steps, self.meta)
        for param, part in zip(self.problem.learned.parameters(), estimate.hypergradient, strict=True):
            param.grad = part
        self._meta_optimizer.step()

    def _remember(self) -> None:
        rows, probabilities = self._passed
        self._averages[rows] = self._averages[rows].lerp(probabilities, 0.5)

    def estimate(self, method: AbstractHypergradient, depth: int) -> Tensor:
        """Return the method's hypergradient through the last ``depth`` steps as one flat vector."""
        found = method.estimate(self.problem, self.optimizer, self.steps[-depth:], self.meta)
        return torch.cat([part.flatten() for part in found.hypergradient]).double()

    def count_passes(self, method: AbstractHypergradient, depth: int) -> int:
        """Return the forward passes of an estimate, that of the meta batch left out."""
        seen: list[None] = []
        handle = self.network.register_forward_hook(lambda *_: seen.append(None))
        self.estimate(method, depth)
        handle.remove()
        return len(seen) - 1
