"""Ending a training once its ranking has settled: the schedule, the checkpoints of the weights, the resume."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sama_core.base_level import schedule_factor
from sama_core.bilevel import BilevelSolver, BilevelState
from sama_core.curate import build_method
from sama_core.options import CurationOptions
from sama_core.reweighting import ReweightingMethod
from sama_core.settling import EpochWatch
from sama_core.types import TensorExamples
from tests.sama_core.problems import build_examples

OPTIONS = CurationOptions(
    epochs=20, batch_size=25, lr=0.05, warmup_steps=2, unroll_steps=2, averaged_checkpoints=5, stop_when_settled=True
)
CPU = torch.device("cpu")


def make_examples(num_rows: int, seed: int) -> TensorExamples:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % 2
    return TensorExamples(torch.randn(num_rows, 2, generator=generator) + 2.0 * labels[:, None], labels, 2)


TRAIN, META = make_examples(100, 1), make_examples(30, 2)


def begin(options: CurationOptions = OPTIONS) -> tuple[ReweightingMethod, BilevelState]:
    torch.manual_seed(0)
    method = ReweightingMethod("sama", options)
    return method, method.init(nn.Linear(2, 2), TRAIN, META)


def run(options: CurationOptions = OPTIONS) -> tuple[ReweightingMethod, BilevelState, list[float]]:
    """Return a finished solve and the learning rate of every step."""
    method, state = begin(options)
    rates = []
    while not method.is_done(state):
        method.step(state)
        rates.append(state.base.descent.groups[0]["lr"])
    return method, state, rates


def test_the_watch_sees_what_each_epoch_of_the_second_half_has_shown() -> None:
    watch, once = EpochWatch(50, num_epochs=10), torch.rand(50, generator=torch.Generator().manual_seed(0))
    restless = torch.rand(50, generator=torch.Generator().manual_seed(1))
    sums, settled = torch.zeros(50), []
    for epoch in range(1, 11):
        sums = sums + (restless if epoch == 7 else once)
        settled.append(watch.observe(epoch, sums))
    assert settled == [False] * 9 + [True], "5 quiet epochs are not looked at, and the 7th begins the count anew"
    assert str(watch) == "the ranking settled after epoch 10 of 10: rank correlation 1.000"


def test_a_settled_ranking_ends_the_training_after_one_more_epoch() -> None:
    _, state, rates = run()
    settled = state.watch.settled_after if state.watch else 0
    assert 13 <= settled <= 17
    assert len(rates) == state.base.course.num_steps == 4 * (settled + 1)
    assert state.base.status.step == len(rates)
    words = f"finished after {len(rates)} steps: the ranking settled after epoch {settled} of 20: rank correlation"
    assert state.base.status.message.startswith(words)


def test_the_last_epoch_goes_through_what_is_left_of_the_schedule() -> None:
    _, _, rates = run()
    usual = [0.05 * schedule_factor("cosine", step, 80) for step in range(80)]
    cut_at = len(rates) - 4
    assert rates[: cut_at + 1] == pytest.approx(usual[: cut_at + 1])
    stride = (80 - cut_at) / 4
    wanted = [0.05 * schedule_factor("cosine", cut_at + stride * step, 80) for step in range(4)]
    assert rates[cut_at:] == pytest.approx(wanted)


def test_the_weights_of_all_checkpoints_are_taken_the_last_step_included() -> None:
    method, state, _ = run()
    assert bool(torch.isfinite(state.checkpoints).all())
    again = BilevelSolver(OPTIONS).init(nn.Linear(2, 2), TRAIN, META, CPU)
    assert bool(torch.isnan(again.checkpoints).all())
    evidence = state.memory.recall(torch.arange(100))
    last = state.problem.learned.summarise(state.problem.weigh(evidence), evidence.labels).detach()
    assert torch.allclose(state.checkpoints[-1], last / last.mean())
    assert method.finish(state).facts["ended_early"] == state.base.course.because


def test_the_places_of_checkpoints_are_those_of_the_whole_training_where_nothing_ends_it() -> None:
    options = replace(OPTIONS, stop_when_settled=False)
    method, state = begin(options)
    filled: list[tuple[int, int]] = []
    while not method.is_done(state):
        before = torch.isfinite(state.checkpoints[:, 0])
        step = method.step(state).step
        filled += [(step, int(slot)) for slot in torch.nonzero(torch.isfinite(state.checkpoints[:, 0]) & ~before)]
    assert filled == [(48, 0), (56, 1), (64, 2), (72, 3), (80, 4)]
    assert "ended_early" not in method.finish(state).facts


@pytest.mark.parametrize("before_the_end", [30, 6, 3, 1])
def test_a_resumed_training_ends_as_the_uninterrupted_one(before_the_end: int) -> None:
    method, whole, rates = run()
    _, broken = begin()
    for _ in range(len(rates) - before_the_end):
        method.step(broken)
    resumed_method, resumed = begin()
    resumed_method.restore(resumed, *method.export(broken))
    while not method.is_done(resumed):
        resumed_method.step(resumed)
    left, right = method.export(resumed)[0], method.export(whole)[0]
    assert left.keys() == right.keys()
    assert all(left[name].numpy().tobytes() == right[name].numpy().tobytes() for name in left)
    assert resumed.base.status == whole.base.status


def test_a_finished_training_is_restored_as_finished() -> None:
    method, whole, _ = run()
    again, state = begin()
    again.restore(state, *method.export(whole))
    assert again.is_done(state)
    assert again.finish(state).weight.tobytes() == method.finish(whole).weight.tobytes()


def test_a_restless_ranking_ends_nothing() -> None:
    options = replace(OPTIONS, lr=1e-7)
    train = build_examples(flipped=0.5)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(train.inputs.shape[1], 8), nn.Dropout(0.9), nn.Linear(8, 3))  # type: ignore[union-attr]
    method = ReweightingMethod("sama", options)
    state = method.init(network, train, build_examples(15, seed=5))
    while not method.is_done(state):
        method.step(state)
    assert state.base.step == 20 * state.base.plan.num_batches
    assert state.base.status.message == f"finished after {state.base.step} steps"


def test_reports_tell_the_new_end() -> None:
    torch.manual_seed(0)
    method = build_method("sama", OPTIONS)
    state = method.init(nn.Linear(2, 2), TRAIN, META)
    ends: list[int] = []
    steps: list[Tensor | int] = []
    while not method.is_done(state):
        report = method.step(state)
        ends.append(report.num_steps)
        steps.append(report.step)
    assert ends[-1] == steps[-1] == len(steps)
    assert ends[-1] < ends[0]
