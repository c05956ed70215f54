"""How near our hypergradients come to automatic differentiation through the real optimizer steps, in float32."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.optim import Optimizer

from benchmarks.engine.ours import build_options
from benchmarks.engine.problems import PROBLEMS, build_examples, build_network
from benchmarks.engine.setting import PERIOD, ArmUnavailableError, Setting
from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.batch import Batch
from sama_core.bilevel import BilevelSolver
from sama_core.errors import NetworkError, OptionsError
from sama_core.hypergradient.contract import AbstractHypergradient, AbstractRecording, BaseStep, HypergradientEstimate
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.problem import BilevelProblem


@dataclass
class _Compared(AbstractHypergradient):
    """Estimates by one method and keeps the cosine of each estimate to the truth.

    Attributes:
        inner: the method.
        is_whole: compare with the truth through all base steps since the last meta step, not through the last alone.
        cosines: one number for each estimate.
    """

    inner: AbstractHypergradient
    is_whole: bool
    cosines: list[float] = field(default_factory=list)
    uses_every_step = True

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:
        """Remember what the truth needs, which is everything."""
        kept = is_last or (is_first and self.is_whole)
        return take_snapshot(optimizer, with_params=kept, with_states=kept)

    def record(self, problem: BilevelProblem) -> AbstractContextManager[AbstractRecording | None]:
        """Record as the method does."""
        return self.inner.record(problem)

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the method's estimate."""
        seen = steps if self.is_whole else steps[-1:]
        truth = UnrolledHypergradient().estimate(problem, optimizer, seen, meta)
        used = steps if self.inner.uses_every_step else steps[-1:]
        estimate = self.inner.estimate(problem, optimizer, used, meta)
        self.cosines.append(_cosine(estimate.hypergradient, truth.hypergradient))
        return estimate


def measure_ours(setting: Setting, num_probes: int, route: str = "auto", **changes: Any) -> list[float]:
    """Return the cosine of our hypergradient to the exact one, one number a probe.

    With ``setting.unroll`` above 1 the exact one is that through all base steps since the last meta step.

    Args:
        setting: network, optimizer and unroll.
        num_probes: meta steps to compare at, after the training steps of the problem.
        route: to the directional derivatives.
        changes: for ``build_options``.

    Raises:
        ArmUnavailableError: the route does not cover the network.
    """
    solver = BilevelSolver(build_options(setting, route, **changes))
    train = build_examples(setting.problem, setting.device, is_meta=False)
    meta = build_examples(setting.problem, setting.device, is_meta=True)
    try:
        state = solver.init(build_network(setting), train, meta, torch.device(setting.device))
    except (NetworkError, OptionsError) as exc:
        raise ArmUnavailableError(str(exc)) from exc
    for _ in range(-(-PROBLEMS[setting.problem].num_training_steps // setting.unroll) * setting.unroll):
        solver.step(state)
    compared = _Compared(state.hypergradient, is_whole=setting.unroll > 1)
    state.hypergradient = compared
    for _ in range(num_probes * setting.unroll):
        solver.step(state)
    return compared.cosines


def measure_unrolled(setting: Setting, num_probes: int) -> dict[str, list[float]]:
    """Return the cosine to the truth through ten base steps, of the last step's share and of all ten steps' shares."""
    deep = replace(setting, unroll=PERIOD)
    return {
        "auto": measure_ours(deep, num_probes),
        "every-step": measure_ours(deep, num_probes, every_step=True),
    }


def _cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    flat = [torch.cat([part.flatten().double() for part in parts]) for parts in (one, other)]
    return float(cosine_similarity(flat[0], flat[1], dim=0))
