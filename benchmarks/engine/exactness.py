"""How near our hypergradients come to automatic differentiation through the real optimizer steps, in float32."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.optim import Optimizer

from benchmarks.engine.ours import build_options
from benchmarks.engine.problems import PROBLEMS, build_examples, build_network
from benchmarks.engine.setting import PERIOD, Setting
from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.batch import Batch
from sama_core.bilevel import BilevelSolver, BilevelState
from sama_core.errors import OptionsError
from sama_core.hypergradient.choice import build_hypergradient
from sama_core.hypergradient.contract import AbstractHypergradient, AbstractRecording, BaseStep, HypergradientEstimate
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.options import CurationOptions
from sama_core.problem import BilevelProblem
from sama_core.randomness import isolated_randomness


@dataclass
class _Compared(AbstractHypergradient):
    """Estimates by several methods at once and keeps the cosine of each estimate to the truth.

    Attributes:
        methods: by name; the first one's estimate is what the solve goes on with.
        is_whole: compare with the truth through all base steps since the last meta step, not through the last alone.
        cosines: by name, one number for each estimate.
    """

    methods: Mapping[str, AbstractHypergradient]
    is_whole: bool
    cosines: dict[str, list[float]] = field(default_factory=dict)
    uses_every_step = True

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:
        """Remember what the truth needs, which is everything."""
        kept = is_last or (is_first and self.is_whole)
        return take_snapshot(optimizer, with_params=kept, with_states=kept)

    @contextmanager
    def record(self, problem: BilevelProblem) -> Iterator[AbstractRecording | None]:
        """Record for the one method among them that needs it."""
        with ExitStack() as stack:
            methods = {id(method): method for method in self.methods.values()}.values()
            recordings = [stack.enter_context(method.record(problem)) for method in methods]
            yield next((recording for recording in recordings if recording is not None), None)

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the first method's estimate."""
        # The coefficients' graph can be run through but once.
        steps = [replace(step, pieces=[replace(piece, coefficients=None) for piece in step.pieces]) for step in steps]
        truth = UnrolledHypergradient().estimate(problem, optimizer, steps if self.is_whole else steps[-1:], meta)
        estimates: dict[int, HypergradientEstimate] = {}
        for name, method in self.methods.items():
            if id(method) not in estimates:
                used = steps if method.uses_every_step else steps[-1:]
                estimates[id(method)] = method.estimate(problem, optimizer, used, meta)
            found = estimates[id(method)].hypergradient
            self.cosines.setdefault(name, []).append(_cosine(found, truth.hypergradient))
        return next(iter(estimates.values()))


def measure_ours(
    setting: Setting, num_probes: int, routes: Sequence[str] = (), **changes: Any
) -> tuple[dict[str, list[float]], list[str]]:
    """Return cosines of our hypergradients to the exact one, one number a probe, and why routes are missing.

    With ``setting.unroll`` above 1 the exact one is that through all base steps since the last meta step.

    Args:
        setting: network, optimizer and unroll.
        num_probes: meta steps to compare at, after the training steps of the problem.
        routes: to look at in the same states, beside the automatic one.
        changes: for ``build_options``.
    """
    options = build_options(setting, **changes)
    solver = BilevelSolver(options)
    train = build_examples(setting.problem, setting.device, is_meta=False)
    meta = build_examples(setting.problem, setting.device, is_meta=True)
    state = solver.init(build_network(setting), train, meta, torch.device(setting.device))
    for _ in range(-(-PROBLEMS[setting.problem].num_training_steps // setting.unroll) * setting.unroll):
        solver.step(state)
    methods, notes = {"auto": state.hypergradient}, []
    for route in routes:
        try:
            methods[route] = _build_route(route, options, state)
        except OptionsError as exc:
            notes.append(str(exc))
    compared = _Compared(methods, is_whole=setting.unroll > 1)
    state.hypergradient = compared
    for _ in range(num_probes * setting.unroll):
        solver.step(state)
    return compared.cosines, notes


def _build_route(route: str, options: CurationOptions, state: BilevelState) -> AbstractHypergradient:
    if route == state.route:
        return state.hypergradient
    batch = state.base.draw()
    evidence = state.memory.recall(batch.rows)
    with isolated_randomness(state.base.device):
        return build_hypergradient("sama", replace(options, route=route), state.problem, batch, evidence)[0]  # type: ignore[arg-type]


def measure_unrolled(setting: Setting, num_probes: int) -> dict[str, list[float]]:
    """Return the cosine to the truth through ten base steps, of the last step's share and of all ten steps' shares."""
    deep = replace(setting, unroll=PERIOD)
    last, _ = measure_ours(deep, num_probes)
    every, _ = measure_ours(deep, num_probes, every_step=True)
    return {"auto": last["auto"], "every-step": every["auto"]}


def _cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    flat = [torch.cat([part.flatten().double() for part in parts]) for parts in (one, other)]
    return float(cosine_similarity(flat[0], flat[1], dim=0))
