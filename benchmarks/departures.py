"""Section "departures": what each departure from the published SAMA code changes.

A small network is trained; at some of its steps every variant estimates the hypergradient of the same state, and is
held against automatic differentiation through the real optimizer steps (``UnrolledHypergradient``).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.optim import SGD, Adagrad, AdamW, Optimizer

from benchmarks.machine import describe_machine
from benchmarks.short_training import Scene, Training, Words, draw_words
from benchmarks.tables import format_table
from sama_core.adaptation.adam import AdamAdaptation
from sama_core.adaptation.contract import AbstractAdaptation, GroupView, take_snapshot
from sama_core.adaptation.quotient import describe_quotient
from sama_core.adaptation.scalars import Scalar
from sama_core.batch import Batch
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate, Piece
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.hypergradient.routes.finite_difference import FiniteDifferenceRoute
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.routes.ghost import GhostRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.losses import given_label_losses, mean_loss
from sama_core.problem import BilevelProblem
from sama_core.randomness import isolated_randomness
from sama_core.tensors import Vector, norm_vector

NUM_SEEDS, MOMENTS = 24, (5, 20, 60)
_EXPLANATION = f"""\
Each cell: median cosine to automatic differentiation through the real optimizer steps, in brackets its 5th percentile,
and the median ratio of the norms; 1-2e-15 is a cosine 2e-15 short of 1. {NUM_SEEDS} seeds; float64 or as named.
"passes": forward passes of an estimate beside that of the meta batch, where they were counted.

Network: 10 inputs, 32 units, 5 classes, LayerNorm, tanh, dropout 0.2; "words": the mean of six 8-wide embeddings of 120
words, 40 of which only the meta set uses. 512 examples, 30% wrong labels, batches of 32. AdamW at 0.003, SGD at 0.1
with momentum 0.9, Adagrad at 0.03. Weight network: four standardised features (loss, margin, disagreement with the
example's averaged probabilities, averaged probability of the given label), a meta step after every fifth base step
(every tenth in the rows of 10 steps); "published weights": one raw feature, the loss, 100 units, weights in (0, 1). The
truth is that of the last base step, in the rows of 5 and 10 steps that of all of these."""
PUBLISHED_LENGTH = 1.0
"""||eps v|| of the published code, unless it is configured otherwise."""


class _Adapted(SamaHypergradient):
    """Takes another adaptation than the optimizer's own, where one is given."""

    def __init__(self, adaptation: AbstractAdaptation | None, route: AbstractRoute | None = None) -> None:
        super().__init__(route or ForwardModeRoute())
        self.adaptation = adaptation

    @torch.no_grad()
    def _adapt(self, optimizer: Optimizer, last: BaseStep, views: list[GroupView], gradient: Vector) -> Vector:
        if self.adaptation is None:
            return super()._adapt(optimizer, last, views, gradient)
        (view,) = views
        return self.adaptation.apply(view, gradient)


class _Identity(AbstractAdaptation):
    """D = 1."""

    def apply(self, view: GroupView, vector: Vector) -> Vector:  # noqa: ARG002
        return vector


class _WithoutBiasCorrection(AdamAdaptation):
    """Both of Adam's terms, from the moments as they lie in the state."""

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:  # noqa: ARG002
        beta1, beta2 = settings["betas"]
        scale, bend = settings["lr"] * (1.0 - beta1), (1.0 - beta2) / (1.0 - beta1)
        return describe_quotient(epsilon=settings["eps"], scale=scale, bend=bend)


class _WithoutSecondTerm(AdamAdaptation):
    """The root in Adam's denominator taken for a constant."""

    def find_constants(self, settings: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> dict[str, Scalar]:
        return {**super().find_constants(settings, states), "bend": 0.0}


class _WithLimitAtZero(AdamAdaptation):
    """D = lr (1 - b1) / (c1 eps) where no gradient has ever arrived, which is its limit there."""

    def apply(self, view: GroupView, vector: Vector) -> Vector:
        plain, beta1 = [part.clone() for part in vector], view.settings["betas"][0]
        adapted = super().apply(view, vector)
        for part, old, state in zip(adapted, plain, view.states, strict=True):
            limit = view.settings["lr"] * (1.0 - beta1) / ((1.0 - beta1 ** float(state["step"])) * view.settings["eps"])
            part.copy_(torch.where(state["exp_avg_sq"] == 0, limit * old, part))
        return adapted


class _OtherMask(FiniteDifferenceRoute):
    """Draws another dropout mask in its second pass."""

    def differentiate(self, problem: BilevelProblem, pieces: Sequence[Piece], **others: Any) -> list[Tensor]:
        moved = [replace(piece, batch=replace(piece.batch, seed=piece.batch.seed + 1)) for piece in pieces]
        return super().differentiate(problem, moved, **others)


class _AlongEverything(FiniteDifferenceRoute):
    """Leaves the direction as it is where the gradient is exactly 0."""

    def differentiate(
        self, problem: BilevelProblem, pieces: Sequence[Piece], *, gradients: Mapping[str, Tensor], **others: Any
    ) -> list[Tensor]:
        everywhere = {name: torch.ones_like(gradient) for name, gradient in gradients.items()}
        return super().differentiate(problem, pieces, gradients=everywhere, **others)


def _move_to_after(optimizer: Optimizer, step: BaseStep) -> BaseStep:
    return replace(step, snapshot=replace(step.snapshot, params=take_snapshot(optimizer).params))


class _AfterTheStep(SamaHypergradient):
    """Takes s_i at theta', after the optimizer's step."""

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        return super().estimate(problem, optimizer, [_move_to_after(optimizer, steps[-1])], meta)


class _MetaGradientBeforeTheStep(SamaHypergradient):
    """Takes the meta gradient at theta, before the optimizer's step."""

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        after = take_snapshot(optimizer).params
        _write(optimizer, steps[-1].snapshot.params)
        try:
            return super().estimate(problem, optimizer, steps, meta)
        finally:
            _write(optimizer, after)


@torch.no_grad()
def _write(optimizer: Optimizer, values: Mapping[int, Tensor]) -> None:
    for param in optimizer.param_groups[0]["params"]:
        param.copy_(values[id(param)])


class _JudgesWithDropout(SamaHypergradient):
    """Takes the meta gradient of the network in training mode."""

    def __init__(self, noisy: BilevelProblem) -> None:
        super().__init__(ForwardModeRoute())
        self.noisy = noisy

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        del problem
        return super().estimate(self.noisy, optimizer, steps, meta)


class _RecomputesFeatures(_Adapted):
    """Differences the weighed loss at theta +- eps v, the weight network's input computed anew in each pass.

    Args:
        training: gives the features.
        num_columns: of them that are recomputed; the others stay as they were.
    """

    length, masks = 1e-5, (0, 0)

    def __init__(self, training: Training, num_columns: int) -> None:
        super().__init__(None)
        self.keeps_direction, self.training, self.num_columns = True, training, num_columns

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        found, step = super().estimate(problem, optimizer, steps, meta), steps[-1]
        direction = found.direction or {}
        epsilon = self.length / norm_vector(list(direction.values()))
        ends = []
        for mask, sign in zip(self.masks, (1.0, -1.0), strict=True):
            moved = {
                problem.names[key]: value + sign * epsilon * direction[problem.names[key]]
                for key, value in step.snapshot.params.items()
            }
            ends.append(self._differentiate(problem, moved, step.pieces[0], mask))
        difference = [(below - above) / (2.0 * epsilon) for above, below in zip(*ends, strict=True)]
        return HypergradientEstimate(difference, found.meta_loss)

    def _differentiate(self, problem: BilevelProblem, params: dict[str, Tensor], piece: Piece, mask: int) -> Vector:
        """Return the gradient of the weighed loss with respect to what is learned."""
        batch, seen = replace(piece.batch, seed=piece.batch.seed + mask), piece.evidence
        with torch.no_grad():
            logits = problem.call(params, dict(piece.buffers), batch)
        anew = self.training.describe(logits, batch)[:, : self.num_columns]
        features = torch.cat((anew, seen.features[:, self.num_columns :]), 1)
        loss = mean_loss(problem.weigh(replace(seen, features=features)), given_label_losses(logits, batch))
        return list(torch.autograd.grad(loss, list(problem.learned.parameters())))


class _AllAtOnce(_RecomputesFeatures):
    """The features recomputed; besides at theta', a mask for each pass, a long step, the published D, a noisy judge."""

    length, masks = PUBLISHED_LENGTH, (1, 2)

    def __init__(self, training: Training, num_columns: int) -> None:
        super().__init__(training, num_columns)
        self.adaptation = _Identity() if isinstance(training.optimizer, SGD) else _WithoutBiasCorrection()

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        del problem
        return super().estimate(self.training.noisy, optimizer, [_move_to_after(optimizer, steps[-1])], meta)


_Build = Callable[[Training], AbstractHypergradient]
_SAMA = SamaHypergradient

_HERE: dict[str, _Build] = {
    "here: forward mode": lambda _: _SAMA(ForwardModeRoute()),
    "here: finite difference": lambda _: _SAMA(FiniteDifferenceRoute()),
    "here: central difference": lambda _: _SAMA(FiniteDifferenceRoute(central=True)),
    "here: ghost": lambda _: _SAMA(GhostRoute()),
}
_ORDER: dict[str, _Build] = {
    "features recomputed: the loss": lambda training: _RecomputesFeatures(training, 1),
    "features recomputed: loss, margin, disagreement": lambda training: _RecomputesFeatures(training, 3),
    "another dropout mask in the second pass": lambda _: _SAMA(_OtherMask()),
    "the same, ‖εv‖ = 1": lambda _: _SAMA(_OtherMask(PUBLISHED_LENGTH)),
    "central difference, ‖εv‖ = 1": lambda _: _SAMA(FiniteDifferenceRoute(PUBLISHED_LENGTH, central=True)),
    "s at θ' (published order)": lambda _: _AfterTheStep(ForwardModeRoute()),
    "v: meta gradient at θ": lambda _: _MetaGradientBeforeTheStep(ForwardModeRoute()),
    "v: meta gradient under dropout": lambda training: _JudgesWithDropout(training.noisy),
    "no adaptation (sama-na)": lambda _: _SAMA(ForwardModeRoute(), adapted=False),
}
_ADAMW: dict[str, _Build] = {
    "no bias correction": lambda _: _Adapted(_WithoutBiasCorrection()),
    "no second term": lambda _: _Adapted(_WithoutSecondTerm()),
    "all as published at once": lambda training: _AllAtOnce(training, 1),
}
_IDENTITY: dict[str, _Build] = {"D = 1": lambda _: _Adapted(_Identity())}
_SGD: dict[str, _Build] = {
    **_IDENTITY,
    "all as published at once": lambda training: _AllAtOnce(training, 1),
}
_LOSS_ALONE: dict[str, _Build] = {
    "here: finite difference": _HERE["here: finite difference"],
    "features recomputed: the loss": _ORDER["features recomputed: the loss"],
    "all as published at once": lambda training: _AllAtOnce(training, 1),
}
_ABSENT: dict[str, _Build] = {
    "here: finite difference": _HERE["here: finite difference"],
    "v kept where g = 0": lambda _: _SAMA(_AlongEverything()),
    "D its limit at absent words": lambda _: _Adapted(_WithLimitAtZero(), FiniteDifferenceRoute()),
    "D its limit at absent words, v kept where g = 0": lambda _: _Adapted(_WithLimitAtZero(), _AlongEverything()),
}
_UNROLLED: dict[str, _Build] = {
    "the last step's share": lambda _: _SAMA(FiniteDifferenceRoute()),
    "every_step": lambda _: _SAMA(FiniteDifferenceRoute(), every_step=True),
}


def _build_adamw(params: Sequence[Tensor]) -> Optimizer:
    return AdamW(params, lr=0.003)


def _build_sgd(params: Sequence[Tensor]) -> Optimizer:
    return SGD(params, lr=0.1, momentum=0.9)


def _build_adagrad(params: Sequence[Tensor]) -> Optimizer:
    return Adagrad(params, lr=0.03)


def _list_scenes() -> list[tuple[Scene, int, dict[str, _Build]]]:
    """Return what to train, through how many steps to look back, and by which variants."""
    adamw, words = Scene("AdamW", _build_adamw), Scene("words, AdamW", _build_adamw, Words, draw_words)
    sgd, adagrad = Scene("SGD, momentum", _build_sgd), Scene("Adagrad", _build_adagrad)
    single = [
        (adamw, {**_HERE, **_ORDER, **_ADAMW}),
        (sgd, {**_HERE, **_ORDER, **_SGD}),
        (replace(adamw, title="AdamW, published weights", sees_loss_alone=True), _LOSS_ALONE),
        (replace(sgd, title="SGD, published weights", sees_loss_alone=True), _LOSS_ALONE),
        (adagrad, _IDENTITY),
        (words, _ABSENT),
        (replace(words, title="words, AdamW, float32", dtype=torch.float32), _ABSENT),
    ]
    several = [
        (replace(scene, title=f"{scene.title}, {depth} steps", unroll_steps=depth), depth, _UNROLLED)
        for scene in (adamw, sgd)
        for depth in (5, 10)
    ]
    return [*((scene, 1, builds) for scene, builds in single), *several]


@dataclass
class _Found:
    """Of one variant at one moment, one number a seed."""

    cosines: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.cosines:
            return ""
        lowest = statistics.quantiles(self.cosines, n=20, method="inclusive")[0]
        middle, ratio = statistics.median(self.cosines), statistics.median(self.ratios)
        return f"{_format_cosine(middle)} ({_format_cosine(lowest)}) x{ratio:.3g}"


def _format_cosine(cosine: float) -> str:
    """Return four digits, or how little is missing to 1."""
    return f"{cosine:.4f}" if cosine < 0.99995 else f"1-{max(1.0 - cosine, 1e-16):.0e}"


def _measure(scene: Scene, depth: int, builds: Mapping[str, _Build]) -> list[list[str]]:
    """Return the rows of a scene."""
    found = {name: {moment: _Found() for moment in MOMENTS} for name in builds}
    passes: dict[str, int] = {}
    for seed in range(NUM_SEEDS):
        training = Training(scene, seed)
        methods = {name: build(training) for name, build in builds.items()}
        for number in range(1, max(MOMENTS) + 1):
            training.step()
            if number not in MOMENTS or number < depth:
                continue
            truth = training.estimate(UnrolledHypergradient(), depth)
            for name, method in methods.items():
                estimate = training.estimate(method, depth)
                found[name][number].cosines.append(float(cosine_similarity(estimate, truth, dim=0)))
                found[name][number].ratios.append(float(estimate.norm() / truth.norm()))
                if depth > 1 and name not in passes:
                    passes[name] = training.count_passes(method, depth)
    return [[scene.title, name, *map(str, cells.values()), str(passes.get(name, ""))] for name, cells in found.items()]


def run(arguments: Sequence[str] = (), out: Path | None = None) -> str:
    """Measure every variant and return the table; it goes to ``out`` where that is given."""
    argparse.ArgumentParser(prog="python -m benchmarks departures").parse_args(arguments)
    started, num_threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with isolated_randomness(torch.device("cpu")):
            rows = [row for what in _list_scenes() for row in _measure(*what)]
        header = ["training", "variant", *(f"after {moment} steps" for moment in MOMENTS), "passes"]
        text = f"{describe_machine()}\n\n{_EXPLANATION}\n\n{format_table(header, rows)}"
    finally:
        torch.set_num_threads(num_threads)
    text += f"\n\nMeasured in {time.monotonic() - started:.0f} s."
    if out is not None:
        out.mkdir(exist_ok=True)
        (out / "departures.md").write_text(f"## departures\n\n{text}\n")
    return text
