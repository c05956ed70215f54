"""One recorded pass of any network, and its derivatives by plain automatic differentiation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sama_core.batch import Batch
from sama_core.evidence import Evidence
from sama_core.hypergradient.contract import Piece
from sama_core.hypergradient.routes.ghost import GhostRecording, GhostRoute
from sama_core.learned import AbstractLearned
from sama_core.losses import mean_loss
from sama_core.precision import Precision
from sama_core.problem import BilevelProblem
from sama_core.randomness import isolated_randomness
from sama_core.tensors import clone_buffers
from sama_core.types import Inputs, list_tensors

CPU = torch.device("cpu")


class RowWeights(AbstractLearned):
    """A weight above 0 for each row, all different."""

    kind = "row-weights"
    is_positive = True

    def __init__(self, num_rows: int = 16) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.linspace(-1.0, 1.0, num_rows, dtype=torch.float64))

    def forward(self, evidence: Evidence) -> Tensor:
        return self.scores[evidence.rows].exp()


class Reader(nn.Module):
    """A layer between others, its output read out as two classes by a fixed random projection."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Inputs) -> Tensor:
        outputs = self.layers(*inputs) if isinstance(inputs, tuple) else self.layers(inputs)
        flat = outputs.flatten(1)
        steps = torch.arange(flat.shape[1] * 2, dtype=torch.float64, device=flat.device).view(-1, 2)
        return torch.tanh(flat) @ (steps * 0.7).sin().to(flat.dtype)


class Classes(nn.Module):
    """A transformers classifier as a network of this library: it returns the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**inputs).logits
        return logits


@dataclass
class Scene:
    """A problem and a batch."""

    problem: BilevelProblem
    batch: Batch

    @property
    def evidence(self) -> Evidence:
        size = len(self.batch.labels)
        return Evidence(self.batch.rows, self.batch.labels, torch.zeros(size, 1), torch.full((size, 2), 0.5))

    def draw_direction(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        return {
            name: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            for name, p in self.problem.params.items()
        }

    def record(
        self, route: GhostRoute, num_examples: int | None = None, scale: float = 1.0, batch: Batch | None = None
    ) -> Piece:
        """Do one base pass inside the route's context; the gradients add up in ``.grad``."""
        problem, batch = self.problem, batch or self.batch
        size, evidence = len(batch.labels), Scene(problem, batch).evidence
        buffers = clone_buffers(problem.network)
        with isolated_randomness(CPU), route.record(problem) as recording:
            losses = problem.evaluate(problem.params, clone_buffers(problem.network), batch)
            loss = mean_loss(problem.weigh(evidence).detach(), losses) * (size / (num_examples or size))
            (loss * scale).backward()
        recording.scale = scale
        return Piece(batch, evidence, losses.detach(), buffers, num_examples or size, recording)

    def differentiate(self, route: GhostRoute, pieces: list[Piece], direction: dict[str, Tensor]) -> list[Tensor]:
        return route.differentiate(self.problem, pieces, params={}, direction=direction, gradients={})

    def measure(self) -> tuple[Tensor, Tensor]:
        """Return s by the route and by automatic differentiation, along one random direction."""
        direction, route = self.draw_direction(), GhostRoute()
        truth = self.differentiate_plainly(direction)
        (found,) = self.differentiate(route, [self.record(route)], direction)
        return found, truth

    def differentiate_plainly(self, direction: dict[str, Tensor], batch: Batch | None = None) -> Tensor:
        problem = self.problem
        with isolated_randomness(CPU):
            losses = problem.evaluate(problem.params, clone_buffers(problem.network), batch or self.batch)
        params = list(problem.params.values())
        results = []
        for loss in losses:
            gradients = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
            pairs = zip(gradients, direction.values(), strict=True)
            results.append(torch.stack([(g * v).sum() for g, v in pairs]).sum())
        return torch.stack(results)


def build_scene(
    network: nn.Module,
    inputs: Inputs,
    *,
    learned: AbstractLearned | None = None,
    precision: Precision | None = None,
    num_examples: int | None = None,
) -> Scene:
    """Return the scene of a network, away from its initial zeros and ones."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for param in network.parameters():
            noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            param.add_(0.1 * noise.to(param.dtype))
    size = num_examples or len(list_tensors(inputs)[0])
    labels = torch.arange(size) % 2
    problem = BilevelProblem(network, learned or RowWeights(), CPU, precision=precision)
    return Scene(problem, Batch(torch.arange(size).flip(0), inputs, labels, seed=11))


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Return ||found - truth|| / ||truth||."""
    return float((found - truth).norm() / truth.norm())


def kept_calls(piece: Piece) -> GhostRecording:
    """Return a piece's recording."""
    assert isinstance(piece.recording, GhostRecording)
    return piece.recording
