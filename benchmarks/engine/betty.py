"""Betty's arms: weight-network reweighting as in its examples, on the same network, batches and optimizers.

Betty is never part of this project: the environment variable BETTY names a checkout of it. What it needs to run under
the torch of today is done here, from outside:

- ``patch_optimizer`` would build the optimizer anew from ``optimizer.defaults``, which AdamW of torch 2.13 no longer
  takes (``decoupled_weight_decay``): the optimizer is handed over as built;
- its logger writes every problem's description to the terminal: it is told not to.

Batches come from ``get_batch``, which Betty offers for this, so that the time of a data loader is not counted.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.engine.plain import build_base_optimizer
from benchmarks.engine.problems import build_batches, build_network
from benchmarks.engine.setting import META_RATE, RATES, ArmUnavailableError, Setting, Step

KINDS = ("sama", "darts", "neumann", "cg")


class LossWeightNetwork(nn.Sequential):
    """The weight network of Betty's example learning_to_reweight: loss, 100 units, weight between 0 and 1."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())


def find_betty() -> Path:
    """Return the checkout that BETTY names and make it importable.

    Raises:
        ArmUnavailableError: BETTY is not set, or names something else.
    """
    name = os.environ.get("BETTY")
    if not name:
        raise ArmUnavailableError("the environment variable BETTY is not set; wanted the path of a checkout of Betty")
    path = Path(name).resolve()
    if not (path / "betty" / "engine.py").is_file():
        raise ArmUnavailableError(f"BETTY: {name} holds no betty/engine.py; wanted the path of a checkout of Betty")
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    return path


def describe_betty() -> str:
    """Return Betty's version, with its commit where the checkout knows it.

    Raises:
        ArmUnavailableError: there is no checkout.
    """
    path = find_betty()
    version = (path / "betty" / "version.txt").read_text().strip()
    asked = ["git", "-C", str(path), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return f"Betty {version}" + (f" at {commit}" if commit and (path / ".git").exists() else "")


def compute_loss_terms(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example, (B,)."""
    return cross_entropy(logits.float(), labels, reduction="none")


class BettyArm:
    """The two problems and the engine of Betty, stepped one base step at a time.

    Args:
        setting: network, optimizer, unroll.
        kind: Betty's hypergradient: one of ``KINDS``.

    Attributes:
        engine: Betty's.
        base: its lower problem.
        meta: its upper problem.
    """

    def __init__(self, setting: Setting, kind: str) -> None:
        find_betty()
        from betty.configs import Config, EngineConfig
        from betty.engine import Engine
        from betty.logging import get_logger

        get_logger().setLevel(logging.WARNING)
        precision = {"float32": "fp32", "bfloat16": "bf16"}[setting.precision]
        network = build_network(setting)
        weight_network = LossWeightNetwork().to(setting.device)
        base_class, meta_class = _build_problem_classes()
        self.base = base_class(
            "base",
            Config(type=kind, precision=precision, unroll_steps=setting.unroll, neumann_alpha=RATES[setting.optimizer]),
            network,
            build_base_optimizer(network, setting),
        )
        self.meta = meta_class(
            "meta",
            Config(precision=precision),
            weight_network,
            torch.optim.Adam(weight_network.parameters(), lr=META_RATE),
        )
        self.base.batches = build_batches(setting)
        self.meta.batches = build_batches(setting, is_meta=True)
        self.engine = Engine(
            problems=[self.meta, self.base],
            config=EngineConfig(strategy="gpu" if setting.device == "cuda" else "cpu"),
            dependencies={"u2l": {self.meta: [self.base]}, "l2u": {self.base: [self.meta]}},
        )
        self.engine.train()
        torch.manual_seed(4)

    def step(self) -> None:
        """Do what one turn of ``Engine.run`` does."""
        self.engine.global_step += 1
        self.engine.train_step()


def _build_problem_classes() -> tuple[type[Any], type[Any]]:
    """Return the lower and the upper problem; Betty can be imported only once it was found."""
    from betty.problems import ImplicitProblem

    class Problem(ImplicitProblem):  # type: ignore[misc]
        def patch_optimizer(self) -> None:
            """Keep the optimizer as built."""

        def get_batch(self) -> Any:
            return self.batches.draw()

    class BaseProblem(Problem):
        def training_step(self, batch: Any) -> Tensor:
            inputs, labels = batch
            losses_B1 = compute_loss_terms(self.module(inputs), labels).unsqueeze(1)
            return torch.mean(self.meta(losses_B1.detach()) * losses_B1)

    class MetaProblem(Problem):
        def training_step(self, batch: Any) -> Tensor:
            inputs, labels = batch
            return compute_loss_terms(self.base(inputs), labels).mean()

    return BaseProblem, MetaProblem


def build_betty(setting: Setting, kind: str) -> Step:
    """Return a function that does one base step of Betty.

    Raises:
        ArmUnavailableError: there is no checkout of Betty.
    """
    return BettyArm(setting, kind).step
