"""What the processes of the distributed tests do; the same functions run alone for comparison."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sama_core.bilevel import BilevelSolver, BilevelState
from sama_core.curate import build_method, curate
from sama_core.errors import ExchangeError, SamaCoreError
from sama_core.exchange import AbstractExchange
from sama_core.options import CurationOptions
from sama_core.types import TensorExamples
from tests.sama_core.detection_scene import NUM_CLASSES as NOISY_CLASSES
from tests.sama_core.detection_scene import NUM_INPUTS, SHORT, make_known, make_never_wrong, make_separate
from tests.sama_core.problems import build_examples

Result = dict[str, Tensor]
CPU = torch.device("cpu")


def build_plain(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Return a network without dropout and BatchNorm: every example is treated alike wherever it is."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def build_noisy() -> nn.Module:
    """Return a network whose processes draw dropout masks of their own and normalise by their own parts."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


class Branching(nn.Module):
    """Uses one layer only where the first row of the batch asks for it, and another layer never."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.usual, self.sometimes, self.never = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.usual(inputs)
        return outputs + self.sometimes(inputs) if inputs[0, 0] > 1.0 else outputs


NETWORKS = {
    "plain": build_plain,
    "plain-float32": lambda: build_plain(torch.float32),
    "noisy": build_noisy,
    "branching": Branching,
}


@dataclass(frozen=True)
class Scene:
    """A solve: its network, its method, and what differs from the usual options."""

    network: str = "plain"
    method: str = "sama"
    has_meta_set: bool = True
    changes: dict[str, Any] = field(default_factory=dict)

    def start(self, exchange: AbstractExchange) -> tuple[BilevelSolver, BilevelState]:
        """Return the solver and the state before the first step."""
        usual = {
            "epochs": 3,
            "batch_size": 8,
            "lr": 0.02,
            "averaged_checkpoints": 2,
            "unroll_steps": 1,
            "warmup_steps": 2,
        }
        options = CurationOptions(**{**usual, **self.changes})
        solver = BilevelSolver(options, self.method, exchange=exchange)
        dtype = torch.float64 if self.network == "plain" else torch.float32
        train, meta = convert(build_examples(37, flipped=0.3), dtype), convert(build_examples(15, seed=5), dtype)
        return solver, solver.init(NETWORKS[self.network](), train, meta if self.has_meta_set else None, CPU)

    def run(self, exchange: AbstractExchange) -> Result:
        """Solve to the end; give a digest of the whole state after every step, and the state at the end."""
        solver, state = self.start(exchange)
        digests, reports = [], []
        while not state.base.is_done:
            report = solver.step(state)
            digests.append(digest(solver.export(state)))
            reports.append([float(report.base_loss), float(report.weights.sum()), float(len(report.weights))])
        reported = torch.tensor(reports, dtype=torch.float64)
        return {"digests": torch.tensor(digests), "reports": reported, **solver.export(state)}


SCENES = {
    "adamw": Scene(),
    "sgd, momentum, clipped, in pieces": Scene(
        changes={"optimizer": "sgd", "lr": 0.1, "clip_norm": 0.5, "accumulate": 2, "unroll_steps": 2}
    ),
    "adam, not adapted, forward mode": Scene(
        method="sama-na",
        changes={"optimizer": "adam", "route": "forward-mode", "learned": "logits", "weight_decay": 0.1},
    ),
    "every step, no meta set": Scene(has_meta_set=False, changes={"every_step": True, "unroll_steps": 3}),
    "nudge, finite difference": Scene(changes={"nudge": 0.01, "route": "finite-difference", "optimizer": "sgd"}),
    "float32": Scene("plain-float32"),
    "dropout and BatchNorm": Scene("noisy"),
    "unused parameters": Scene("branching", changes={"weight_decay": 0.1}),
    "float16": Scene("plain-float32", changes={"precision": "float16", "route": "forward-mode"}),
}


def convert(examples: TensorExamples, dtype: torch.dtype) -> TensorExamples:
    """Return the examples with inputs of this type."""
    inputs = examples.fetch(torch.arange(len(examples)))
    assert isinstance(inputs, Tensor)
    return TensorExamples(inputs.to(dtype), examples.labels, examples.num_classes)


def digest(tensors: Result) -> int:
    """Return a digest of every bit but those of the pieces in memory, which belong to one process."""
    parts = [tensors[name].numpy().tobytes() for name in sorted(tensors) if not name.startswith("window")]
    return crc32(b"".join(parts))


def solve_until(exchange: AbstractExchange, scene: str, step: int) -> Result:
    """Solve up to a step and give the state there."""
    solver, state = SCENES[scene].start(exchange)
    while state.base.step < step:
        solver.step(state)
    return solver.export(state)


def solve_on(exchange: AbstractExchange, scene: str, checkpoint: str) -> Result:
    """Go on from a checkpoint to the end."""
    solver, state = SCENES[scene].start(exchange)
    solver.restore(state, load_file(checkpoint))
    while not state.base.is_done:
        solver.step(state)
    return solver.export(state)


def step_on_and_on(exchange: AbstractExchange, folder: Path) -> Result:
    """Step for longer than any test waits, saying when the first step is done; give the error that ends it."""
    solver, state = Scene(changes={"epochs": 10_000}).start(exchange)
    try:
        while not state.base.is_done:
            solver.step(state)
            (folder / f"stepping-{exchange.rank}").touch()
    except ExchangeError as error:
        (folder / f"error-{exchange.rank}").write_text(str(error))
    return {}


def count_collectives(exchange: AbstractExchange) -> Result:
    """Count what travels in a base step, and in one with a meta step."""
    counts: dict[str, int] = {}

    def count(name: str) -> Any:
        original = getattr(dist, name)

        def counting(*args: Any, **options: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return original(*args, **options)

        setattr(dist, name, counting)
        return original

    names = ("all_reduce", "all_gather_single", "broadcast")
    originals = [count(name) for name in names]
    solver, state = Scene(changes={"unroll_steps": 2, "warmup_steps": 0}).start(exchange)
    rows = []
    for _ in range(4):
        counts.clear()
        solver.step(state)
        rows.append([counts.get(name, 0) for name in names])
    for name, original in zip(names, originals, strict=True):
        setattr(dist, name, original)
    return {"counts": torch.tensor(rows)}


def watch_overlap(exchange: AbstractExchange) -> Result:
    """Count the buckets that are on their way before the last gradient is made, in both kinds of backward pass."""
    layers = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(4)))
    params = list(layers.parameters())
    sent = 0
    original = dist.all_reduce

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        return original(*args, **options)

    dist.all_reduce = counting
    early: list[int] = []
    inputs = torch.full((2, 1024), 1.0 + exchange.rank)
    with exchange.add_up_gradients(params):
        handle = params[1].register_post_accumulate_grad_hook(lambda _: early.append(sent))
        layers(inputs).sum().backward()
    handle.remove()
    sent = 0
    handle = params[1].register_hook(lambda _: early.append(sent))
    summed = exchange.differentiate([layers(inputs).sum()], params)
    agree = [torch.equal(param.grad, gradient) for param, gradient in zip(params, summed, strict=True)]
    handle.remove()
    dist.all_reduce = original
    own = [torch.autograd.grad(layers(torch.full((2, 1024), 1.0 + rank)).sum(), params)[0] for rank in range(2)]
    right = torch.allclose(summed[0], own[0] + own[1], rtol=1e-5)
    return {"early": torch.tensor(early), "agree": torch.tensor(agree), "right": torch.tensor(right)}


CURATED = {"planted": make_separate, "known": make_known, "planted inside": make_never_wrong}


def decide(exchange: AbstractExchange, kind: str) -> Result:
    """Curate with the detector, and give all that is decided."""
    torch.manual_seed(1)
    layers = (nn.Linear(NUM_INPUTS, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, NOISY_CLASSES))
    noisy, network = CURATED[kind](), nn.Sequential(*layers).double()
    train, meta = convert(noisy.train, torch.float64), convert(noisy.meta, torch.float64)
    meta.train_rows, meta.given_labels = noisy.meta.train_rows, noisy.meta.given_labels
    decisions = curate(train, network, SHORT, meta, exchange=exchange)
    arrays = {name: getattr(decisions, name) for name in ("weight", "noise_score", "suggested", "probabilities")}
    return {name: torch.from_numpy(values) for name, values in {**arrays, **decisions.evidence}.items()}


def decide_all(exchange: AbstractExchange) -> Result:
    """Curate everything of ``CURATED``."""
    return collect({f"curated, {kind}": decide(exchange, kind) for kind in CURATED})


REFUSED = {
    "batch": Scene(changes={"batch_size": 1}),
    "meta batch": Scene(changes={"meta_batch_size": 1}),
    "method": Scene(method="cg"),
}


def be_refused(exchange: AbstractExchange, folder: Path) -> None:
    """Ask for what processes cannot share, and write down the messages."""
    messages = {}
    for name, scene in {**REFUSED, "seed": Scene(changes={"seed": exchange.rank})}.items():
        try:
            scene.start(exchange)
        except SamaCoreError as error:
            messages[name] = f"{type(error).__name__}: {error}"
    try:
        build_method("aum", CurationOptions(), exchange)
    except SamaCoreError as error:
        messages["baseline"] = f"{type(error).__name__}: {error}"
    (folder / f"messages-{exchange.rank}").write_text(json.dumps(messages))


MOVED = ["adamw", "every step, no meta set"]
OF_THREE = ["adamw", "sgd, momentum, clipped, in pieces", "dropout and BatchNorm", "unused parameters"]


def solve_scenes(exchange: AbstractExchange, names: Iterable[str]) -> Result:
    """Solve these scenes."""
    return collect({name: SCENES[name].run(exchange) for name in names})


def collect(results: dict[str, Result]) -> Result:
    """Return the results as one, by ``name:key``."""
    return {f"{name}:{key}": tensor for name, result in results.items() for key, tensor in result.items()}


def work_as_two(exchange: AbstractExchange, folder: Path) -> Result:
    """Do everything that two processes are watched at; leave a checkpoint of each scene that others go on with."""
    for number, scene in enumerate(MOVED):
        half = solve_until(exchange, scene, step=7)
        save_file(half, folder / f"checkpoint-{number}-{exchange.rank}")
    be_refused(exchange, folder)
    watched = {"counted": count_collectives(exchange), "overlap": watch_overlap(exchange)}
    return {**solve_scenes(exchange, SCENES), **collect(watched), **decide_all(exchange)}


def work_as_three(exchange: AbstractExchange, folder: Path, checkpoints: str) -> Result:
    """Solve some scenes, and go on with what two processes have begun."""
    going_on = {f"went on, {scene}": solve_on(exchange, scene, path) for scene, path in list_moved(checkpoints)}
    return {**solve_scenes(exchange, OF_THREE), **collect(going_on)}


def list_moved(folder: str) -> list[tuple[str, str]]:
    """Return the scenes that were begun by two processes, and the checkpoint of each."""
    return [(scene, f"{folder}/checkpoint-{number}-0") for number, scene in enumerate(MOVED)]
