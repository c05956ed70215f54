"""The unrolled hypergradient equals differences of the whole training in lambda: it is the reference of the rest."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sama_core.adaptation.clipping import Clipping
from sama_core.adaptation.contract import take_snapshot
from sama_core.batch import Batch
from sama_core.exchange import AbstractExchange, Alone
from sama_core.hypergradient.contract import BaseStep, Piece
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.losses import mean_loss
from sama_core.problem import BilevelProblem
from sama_core.tensors import clone_buffers
from tests.conformance.threads import run_together
from tests.sama_core.optimizers import VARIANTS
from tests.sama_core.problems import (
    CPU,
    Scene,
    build_learned,
    build_network,
    draw_batch,
    draw_evidence,
    relative_error,
    take_base_step,
)

EXACT = UnrolledHypergradient()


class Nudged(UnrolledHypergradient):
    """Moves lambda before the first step of the window, and lets the estimate's meta loss tell what came of it."""

    def __init__(self, shift: Tensor) -> None:
        self.shift = shift

    def measure(self, scene: Scene) -> float:
        torch.manual_seed(0)
        network = scene.network()
        problem = BilevelProblem(network, build_learned(scene.learned), CPU)
        build = VARIANTS[scene.optimizer] if isinstance(scene.optimizer, str) else scene.optimizer
        optimizer = build([p for p in network.parameters() if p.requires_grad])
        for number in range(scene.num_steps):
            if number == scene.num_steps - scene.unroll_steps:
                params = list(problem.learned.parameters())
                vector_to_parameters(parameters_to_vector(params).detach() + self.shift, params)
            batch = scene.draw(8, number)
            take_base_step(problem, optimizer, batch, self, num_pieces=scene.num_pieces, clip_norm=scene.clip_norm)
        with torch.no_grad():
            meta = scene.draw(6, 1000)
            return float(problem.evaluate_meta(problem.params, clone_buffers(network), meta))


def build_batch_norm() -> nn.Module:
    return build_network("batch")


class Attention(nn.Module):
    """Attention over the inputs as a sequence, with dropout inside the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(1, 12).double(), nn.Linear(4, 3).double()

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = self.embed(inputs.unsqueeze(-1)).chunk(3, -1)
        chance = 0.2 if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=chance)
        return self.out(mixed.mean(1))


SCENES = {
    "adamw": Scene(VARIANTS["adamw"], num_steps=4),
    "momentum-pieces": Scene(VARIANTS["sgd-nesterov"], num_steps=4, num_pieces=2),
    "first-steps": Scene(VARIANTS["sgd-dampening"], num_steps=3),
    "batch-norm": Scene(VARIANTS["adam-coupled"], num_steps=4, network=build_batch_norm, num_pieces=2),
    "clipped": Scene(VARIANTS["rmsprop-coupled"], num_steps=4, clip_norm=0.05),
    "logits": Scene(VARIANTS["nadam-coupled"], num_steps=4, learned="logits"),
    "attention": Scene(VARIANTS["amsgrad"], num_steps=4, network=Attention),
    "rectified": Scene(VARIANTS["radam"], num_steps=7),
    "adadelta": Scene(VARIANTS["adadelta-coupled"], num_steps=4),
    "adagrad": Scene(VARIANTS["adagrad"], num_steps=3),
    "adamax": Scene(VARIANTS["adamax-coupled"], num_steps=4),
}


@pytest.mark.parametrize("unroll_steps", [1, 3])
@pytest.mark.parametrize("name", SCENES)
def test_hypergradient_equals_differences_of_the_training_itself(name: str, unroll_steps: int) -> None:
    scene = replace(SCENES[name], unroll_steps=unroll_steps)
    truth = scene.measure(EXACT)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(len(truth), generator=generator, dtype=torch.float64)
        ahead, behind = (Nudged(1e-5 * sign * direction).measure(scene) for sign in (1, -1))
        assert float(truth @ direction) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_meta_loss_is_that_of_the_parameters_after_the_steps() -> None:
    scene = replace(SCENES["adamw"], unroll_steps=3)
    learned = build_learned(scene.learned)
    shift = torch.zeros(sum(p.numel() for p in learned.parameters()), dtype=torch.float64)
    assert float(scene.run(EXACT).meta_loss) == pytest.approx(Nudged(shift).measure(scene), rel=1e-12)


def test_earlier_steps_have_their_share() -> None:
    one, three = (replace(SCENES["adamw"], unroll_steps=k).measure(EXACT) for k in (1, 3))
    assert relative_error(one, three) > 0.1


def test_nothing_the_caller_owns_is_edited() -> None:
    torch.manual_seed(0)
    network = build_batch_norm()
    problem = BilevelProblem(network, build_learned("network"), CPU)
    optimizer = VARIANTS["adam-coupled"](list(network.parameters()))
    steps = [
        take_base_step(problem, optimizer, draw_batch(8, number), EXACT, is_first=number == 0) for number in range(2)
    ]

    def list_tensors() -> list[Tensor]:
        params = [p.detach() for p in (*network.parameters(), *problem.learned.parameters())]
        gradients = [p.grad for p in network.parameters()]
        snapshot = [t for state in steps[0].snapshot.states.values() for t in state.values()]
        states = [t for state in optimizer.state.values() for t in state.values()]
        buffers = [b for step in steps for piece in step.pieces for b in piece.buffers.values()]
        return [
            *params,
            *gradients,
            *network.buffers(),
            *snapshot,
            *steps[0].snapshot.params.values(),
            *states,
            *buffers,
        ]

    before = [tensor.clone() for tensor in list_tensors()]
    EXACT.estimate(problem, optimizer, steps, draw_batch(6, 1000))
    assert all(torch.equal(a, b) for a, b in zip(before, list_tensors(), strict=True))
    assert all(p.grad is None for p in problem.learned.parameters())


class Branches(nn.Module):
    """Of the first batch only the second half calls the second branch; nobody calls the third."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.extra, self.never = (nn.Linear(5, 3).double() for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        is_large = inputs[:, :1] > 0.5
        outputs = self.base(inputs)
        return outputs + is_large * self.extra(inputs) if bool(is_large.any()) else outputs


def estimate_share(build: Callable[[], nn.Module], exchange: AbstractExchange) -> Tensor:
    """Return the hypergradient over two clipped steps, whole or as one of two processes sees it."""
    network = build()
    generator = torch.Generator().manual_seed(1)
    learned = build_learned("logits")
    for param in (*network.parameters(), *learned.parameters()):
        param.data = torch.randn(param.shape, generator=generator, dtype=torch.float64) / 2
    problem = BilevelProblem(network, learned, CPU, exchange=exchange)
    optimizer = optim.Adam(network.parameters(), lr=0.05, weight_decay=0.1)
    used = [p for name, p in network.named_parameters() if not name.startswith("never")]
    steps = []
    for number in range(2):
        whole = draw_batch(8, number)
        part = take_part(whole, exchange)
        snapshot = take_snapshot(optimizer, with_states=True)
        optimizer.zero_grad()
        evidence, buffers = draw_evidence(whole), clone_buffers(network)
        losses = problem.evaluate(problem.params, buffers, part)
        loss = mean_loss(exchange.shard(problem.weigh(evidence).detach()), losses) * part.share
        loss.backward()
        for param in used:
            param.grad = torch.zeros_like(param) if param.grad is None else param.grad
        exchange.add_up([param.grad for param in used])
        clipping = Clipping(0.2, nn.utils.clip_grad_norm_(used, 0.2))
        optimizer.step()
        pieces = [Piece(part, evidence, losses.detach(), buffers, 8)]
        steps.append(BaseStep(pieces, [dict(group) for group in optimizer.param_groups], snapshot, clipping))
    meta = take_part(draw_batch(6, 1000), exchange)
    return torch.cat([part.flatten() for part in EXACT.estimate(problem, optimizer, steps, meta).hypergradient])


def take_part(batch: Batch, exchange: AbstractExchange) -> Batch:
    rows, inputs, labels = (exchange.shard(tensor) for tensor in (batch.rows, batch.inputs, batch.labels))
    return Batch(rows, inputs, labels, batch.seed, len(batch.labels))


@pytest.mark.parametrize("build", [lambda: build_network(dropout=0.0), Branches], ids=["layers", "branches"])
def test_two_processes_find_what_one_finds(build: Callable[[], nn.Module]) -> None:
    with sdpa_kernel(SDPBackend.MATH):  # the switch belongs to all threads: it is put back here, not by one of them
        first, second = run_together(2, lambda exchange: estimate_share(build, exchange))
    assert torch.equal(first, second)
    assert relative_error(first, estimate_share(build, Alone())) < 1e-12
