"""What the processes of the tests of divided networks do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sama_core.batch import Batch
from sama_core.distributed import DistributedExchange
from sama_core.errors import OptionsError
from sama_core.hypergradient.contract import BaseStep, HypergradientEstimate
from sama_core.options import CurationOptions
from sama_core.problem import BilevelProblem
from sama_core.sharded import ShardedExchange, ShardedSama, shard_children, solve_sharded, take_part
from sama_core.solve import Solution, solve
from tests.sama_core.problems import build_examples
from tests.sama_core.tasks import Result, convert

FEATURES = ("loss", "margin", "average_p_given")
OPTIMIZERS = ("sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adamax", "adadelta")
REFUSED: dict[str, Any] = {
    "clip_norm": 1.0,
    "nudge": 0.1,
    "every_step": True,
    "compile": True,
    "precision": "float16",
    "features": ("loss", "disagreement"),
    "route": "ghost",
}


def build_uneven(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Return a network whose last layer has three rows: two processes hold unequal parts, three of them a row each."""
    torch.manual_seed(1)
    parts = (nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
    return nn.Sequential(*parts).to(dtype)


def make_options(**changes: Any) -> CurationOptions:
    usual = {
        "epochs": 2,
        "batch_size": 8,
        "lr": 0.02,
        "unroll_steps": 1,
        "warmup_steps": 2,
        "route": "finite-difference",
    }
    return CurationOptions(**{**usual, "features": FEATURES, **changes})


def solve_both(exchange: DistributedExchange, options: CurationOptions, *, adapted: bool = True) -> Result:
    """Solve with the network whole and with it divided; give both."""
    train, meta = (convert(build_examples(n, seed, flipped), torch.float64) for n, seed, flipped in DATA)
    method = "sama" if adapted else "sama-na"
    whole = solve(build_uneven(), train, meta, options=options, exchange=exchange, method=method)
    divided = solve_sharded(build_uneven(), train, meta, options=options, exchange=exchange, adapted=adapted)
    return {**describe("whole", whole), **describe("divided", divided)}


DATA = ((37, 0, 0.3), (15, 5, 0.0))


def describe(name: str, solution: Solution) -> Result:
    """Return a solution's tensors, those of a divided network put together."""
    tensors: dict[str, Tensor] = {}
    for key, tensor in solution.network.state_dict().items():
        tensors[f"{name}/{key}"] = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    tensors |= {f"{name}/learned/{key}": tensor for key, tensor in solution.learned.state_dict().items()}
    return {key: tensor.detach().clone() for key, tensor in tensors.items()}


class Watched(ShardedSama):
    """Notes whether an estimate leaves every bit of the network, its buffers and its gradients as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bool] = []
        self.sizes: list[int] = []

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        def look() -> list[Tensor]:
            params = list(problem.network.parameters())
            gradients = [p.grad for p in params if p.grad is not None]
            return [take_part(tensor).clone() for tensor in (*params, *gradients, *problem.network.buffers())]

        before = look()
        estimate = super().estimate(problem, optimizer, steps, meta)
        self.kept.append(all(torch.equal(left, right) for left, right in zip(before, look(), strict=True)))
        self.sizes = [take_part(p).numel() for p in problem.network.parameters()]
        return estimate


def watch(exchange: DistributedExchange) -> Result:
    """Solve, looking at the network around every estimate."""
    train, meta = (convert(build_examples(n, seed, flipped), torch.float64) for n, seed, flipped in DATA)
    method, sharded = Watched(), ShardedExchange(exchange, shard_children)
    solve(build_uneven(), train, meta, options=make_options(), exchange=sharded, method=method)
    return {"kept": torch.tensor(method.kept), "sizes": torch.tensor(method.sizes)}


def work_sharded(exchange: DistributedExchange, folder: Path) -> Result:
    """Do all that processes with a divided network are watched at."""
    cases = {name: solve_both(exchange, make_options(optimizer=name)) for name in OPTIMIZERS}
    cases["pieces"] = solve_both(exchange, make_options(accumulate=2, unroll_steps=2, batch_size=16))
    cases["not adapted"] = solve_both(exchange, make_options(), adapted=False)
    messages = {}
    for name, value in REFUSED.items():
        try:
            solve_sharded(build_uneven(), build_examples(), exchange=exchange, options=make_options(**{name: value}))
        except OptionsError as error:
            messages[name] = str(error)
    (folder / f"messages-{exchange.rank}").write_text(json.dumps(messages))
    joined = {f"{case}:{key}": tensor for case, result in cases.items() for key, tensor in result.items()}
    return {**joined, **watch(exchange)}
