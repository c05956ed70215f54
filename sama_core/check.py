"""How near a hypergradient method comes to automatic differentiation, on the user's own network and data."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.batch import Batch
from sama_core.bilevel import BilevelSolver, BilevelState
from sama_core.datasets import PairDataset, adapt_dataset
from sama_core.hypergradient.contract import (
    AbstractHypergradient,
    AbstractRecording,
    BaseStep,
    HypergradientEstimate,
)
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.options import CurationOptions
from sama_core.problem import BilevelProblem
from sama_core.types import JSON, AbstractExamples, Inputs, map_inputs


@dataclass(frozen=True)
class Comparison:
    """One estimate beside the truth.

    Attributes:
        step: base steps done.
        cosine: of the angle to the hypergradient through the last base step, by automatic differentiation; -1..1.
        relative_error: ||estimate - truth|| / ||truth|| of the same.
        unrolled_cosine: cosine to the hypergradient through all base steps since the last meta step.
    """

    step: int
    cosine: float
    relative_error: float
    unrolled_cosine: float


@dataclass(frozen=True)
class HypergradientCheck:
    """What a check found.

    Attributes:
        method: the method that was checked.
        route: its way to directional derivatives; None where it has none.
        as_run: in the number format of the options.
        double: the same solve in float64.
    """

    method: str
    route: str | None
    as_run: tuple[Comparison, ...]
    double: tuple[Comparison, ...]

    def to_json(self) -> dict[str, JSON]:
        """Return the check as JSON values."""
        values: dict[str, JSON] = asdict(self)
        return values


class _Compared(AbstractHypergradient):
    """Estimates by one method, and keeps beside each estimate what automatic differentiation says."""

    uses_every_step = True

    def __init__(self, inner: AbstractHypergradient) -> None:
        self.inner, self.truth = inner, UnrolledHypergradient()
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:
        kept = is_first or is_last
        return take_snapshot(optimizer, with_params=kept, with_states=kept)

    def record(self, problem: BilevelProblem) -> AbstractContextManager[AbstractRecording | None]:
        return self.inner.record(problem)

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        truths = [self.truth.estimate(problem, optimizer, window, meta) for window in (steps[-1:], steps)]
        used = steps if self.inner.uses_every_step else steps[-1:]
        estimate = self.inner.estimate(problem, optimizer, used, meta)
        one, whole, ours = (
            torch.cat([part.flatten().double() for part in found.hypergradient]) for found in (*truths, estimate)
        )
        self.found.append((ours, one, whole))
        return estimate


class _DoubleExamples(AbstractExamples):
    """The same examples with inputs in float64."""

    def __init__(self, inner: AbstractExamples) -> None:
        self.inner, self.labels, self.num_classes = inner, inner.labels, inner.num_classes
        self.sources = inner.sources

    def __len__(self) -> int:
        return len(self.inner)

    def fetch(self, rows: Tensor) -> Inputs:
        return map_inputs(
            self.inner.fetch(rows), lambda tensor: tensor.double() if tensor.is_floating_point() else tensor
        )


def check_hypergradient(
    network: nn.Module,
    train: AbstractExamples | PairDataset,
    meta: AbstractExamples | PairDataset | None = None,
    options: CurationOptions | None = None,
    *,
    method: str = "sama",
    num_batches: int = 3,
    device: torch.device | str = "cpu",
) -> HypergradientCheck:
    """Compare a method's hypergradients with automatic differentiation, on a few batches of one's own.

    Trains a copy of the network through the warm-up and ``num_batches`` meta steps, once as the options say and once
    in float64. Needs the memory of a backward pass through a backward pass: several times that of training.

    Args:
        network: base network; not edited.
        train: examples of the base loss.
        meta: trusted examples; None takes other rows of ``train``.
        options: as the solve will have them; None takes the defaults.
        method: a hypergradient method by name.
        num_batches: meta steps to check, at least 1.
        device: where to compute.

    Raises:
        ExamplesError, NetworkError, OptionsError, UnknownMethodError: as the solve would.

    Example:
        >>> examples = torch.utils.data.TensorDataset(torch.randn(40, 3), torch.arange(40) % 2)
        >>> check = check_hypergradient(nn.Linear(3, 2), examples, options=CurationOptions(batch_size=8))
        >>> all(found.relative_error < 1e-10 for found in check.double)
        True
        >>> all(found.cosine > 0.9999 for found in check.as_run)
        True
    """
    chosen = replace(options or CurationOptions(), compile=False, stop_when_settled=False)
    examples = adapt_dataset(train)
    trusted = None if meta is None else adapt_dataset(meta, examples.num_classes)
    place = torch.device(device)
    solver = BilevelSolver(_shorten(chosen, len(examples), num_batches), method)
    as_run, route = _compare(solver, solver.init(network, examples, trusted, place), num_batches)
    wide = BilevelSolver(replace(solver.options, precision="float32"), method)
    doubles = None if trusted is None else _DoubleExamples(trusted)
    state = wide.init(deepcopy(network).double(), _DoubleExamples(examples), doubles, place)
    double, _ = _compare(wide, state, num_batches)
    return HypergradientCheck(method, route, as_run, double)


def _shorten(options: CurationOptions, num_examples: int, num_batches: int) -> CurationOptions:
    """Return the options of a solve that has just ``num_batches`` meta steps in it."""
    steps = (options.warmup_steps // options.unroll_steps + num_batches) * options.unroll_steps
    per_epoch = -(-num_examples // options.batch_size)
    return replace(options, epochs=-(-steps // per_epoch))


def _compare(solver: BilevelSolver, state: BilevelState, num_batches: int) -> tuple[tuple[Comparison, ...], str | None]:
    """Train until ``num_batches`` meta steps are done and return what was found at each."""
    compared = _Compared(state.hypergradient)
    state.hypergradient = compared
    found: list[Comparison] = []
    while len(found) < num_batches and not state.base.is_done:
        solver.step(state)
        if len(compared.found) > len(found):
            ours, one, whole = compared.found[-1]
            error = float((ours - one).norm() / one.norm())
            found.append(Comparison(state.base.step, _cosine(ours, one), error, _cosine(ours, whole)))
    return tuple(found), state.route


def _cosine(one: Tensor, other: Tensor) -> float:
    return float((one @ other) / (one.norm() * other.norm()))
