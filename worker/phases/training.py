"""Training: the curation method's own steps, with progress, curves, checkpoints and an exact resume."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sama_core import AbstractMethod, CurationOptions, build_method
from sama_core.detection.method import CurationState
from sama_core.exchange import AbstractExchange
from sama_core.repeated import RepeatedState
from service.jobs.document import BASELINES, JobDocument
from service.jobs.evaluation_plan import plan_evaluation
from service.jobs.state import Phase
from service.storage.estimates import count_plain_steps, count_plain_trainings
from worker.checkpoints import Checkpoint
from worker.closing import time_decisions
from worker.context import AttemptContext, StepBoundary
from worker.phases.reading import JobData
from worker.phases.sharing import share_training
from worker.schedule import ScheduleCut, ScheduleTooLongError, ScheduleWatch, describe_schedule, is_settled

STAGE = "training"


@dataclass(frozen=True)
class FinishedTraining:
    """The method and its state after the last step."""

    method: AbstractMethod[Any]
    state: Any


def train(
    context: AttemptContext, data: JobData, saved: Checkpoint | None, boundary: StepBoundary
) -> tuple[JobData, FinishedTraining | None]:
    """Drive the method to its last step; None where a checkpoint from after the training makes that needless.

    Returns:
        The data, with fewer epochs where the job's time would not have sufficed, and the training.

    Raises:
        AttemptStopped: a stop was asked for; a checkpoint is saved.
        ServiceError: `time_limit`; not even one epoch fits the job's time.
    """
    _plan_work(context, data)
    if saved is not None and saved.stage != STAGE:
        context.progress.enter_phase(Phase.TRAINING, "training was finished by an earlier attempt")
        return data, None
    context.progress.enter_phase(Phase.TRAINING, f"training with method {context.document.method.name}")
    settled = saved is not None and is_settled(saved.values)
    while True:
        try:
            watch = None if settled else _watch_schedule(context, data)
            return data, _train_whole(context, data, saved, boundary, watch)
        except ScheduleTooLongError as found:
            context.progress.add_event("schedule", f"{found.cut}")
            data, saved, settled = data.shorten(found.cut), None, found.is_final
            _plan_work(context, data)


def _train_whole(
    context: AttemptContext,
    data: JobData,
    saved: Checkpoint | None,
    boundary: StepBoundary,
    watch: ScheduleWatch | None,
) -> FinishedTraining:
    with share_training(context, data, saved) as exchange:
        method, state = start_method(data, context.device, saved, exchange)
        if saved is not None or data.cut is not None:
            context.progress.drop_metrics_after(0 if saved is None else saved.step)
        _step_to_end(context, _Run(method, state, data.cut, watch), boundary, begins_anew=saved is None)
    return FinishedTraining(method, state)


def start_method(
    data: JobData, device: torch.device, saved: Checkpoint | None, exchange: AbstractExchange
) -> tuple[AbstractMethod[Any], Any]:
    """Return the method and its state before the step to come; the same in every process that shares the training."""
    method = build_method(data.method_name, data.options, exchange, data.builder.build)
    state = method.init(data.builder.build(data.options.seed), data.train, data.meta, device)
    if saved is not None:
        method.restore(state, saved.tensors, saved.values)
    return method, state


def _watch_schedule(context: AttemptContext, data: JobData) -> ScheduleWatch:
    """Return what looks whether the schedule fits the job's time."""
    training, evaluation = _count_work(context.document, data)
    num_curations = context.document.method.seeds * (1 + plan_evaluation(context.document).num_method)
    closing = 0.0
    if context.document.method.name not in BASELINES:
        network = data.builder.build(data.options.seed)
        closing = num_curations * time_decisions(network, data.train, context.device)
    return ScheduleWatch(
        context.budget,
        epochs=data.options.epochs,
        warmup_steps=data.options.warmup_steps,
        unroll_steps=data.options.unroll_steps,
        cost=count_plain_steps(context.document.method),
        evaluation=evaluation / training if training else 0.0,
        closing=closing,
        finish_steps=partial(torch.cuda.synchronize, context.device) if context.device.type == "cuda" else _on_time,
    )


def _on_time() -> None:
    """Wait for nothing: the CPU has finished its steps when they return."""


@dataclass(frozen=True)
class _Run:
    """A training under way, and what is known of its schedule."""

    method: AbstractMethod[Any]
    state: Any
    cut: ScheduleCut | None
    watch: ScheduleWatch | None

    def save(self, step: int) -> Checkpoint:
        tensors, values = self.method.export(self.state)
        settled = self.watch is None or self.watch.is_settled
        return Checkpoint(STAGE, step, tensors, {**values, **describe_schedule(self.cut, is_settled=settled)})


def _step_to_end(context: AttemptContext, run: _Run, boundary: StepBoundary, *, begins_anew: bool) -> None:
    progress, method, state, step = context.progress, run.method, run.state, 0
    is_told, told_ending = False, _find_ending(state)
    if run.cut is not None and begins_anew:
        boundary.save(run.save(0))  # whatever happens from here on, the training goes on with these epochs
    while not method.is_done(state):
        report = method.step(state)
        step = report.step
        progress.add_report(report)
        progress.advance(step / report.num_steps, num_examples=report.num_examples)
        if not method.is_done(state):
            is_told = is_told or _tell_route(context, state)
            told_ending = _tell_ending(context, state, told_ending)
            if run.watch is not None:
                run.watch.see(report, _count_preparation(state))
            boundary.cross(partial(run.save, step))
    if step:
        boundary.save(run.save(step))


def _tell_route(context: AttemptContext, state: Any) -> bool:
    """Tell how directional derivatives are taken, once that is known; return True when it was told."""
    curation = find_curation(state)
    if curation is None or curation.bilevel is None:
        return False
    context.progress.add_event("route", f"directional derivatives by {curation.bilevel.route_reason}")
    return True


def _tell_ending(context: AttemptContext, state: Any, told: str | None) -> str | None:
    """Tell that the training ends earlier than planned, once that is known; return what was told last."""
    ending = _find_ending(state)
    if ending is not None and ending != told:
        context.progress.add_event("settled", f"{ending}; training ends with the next one")
    return ending or told


def _find_ending(state: Any) -> str | None:
    """Return why a training ends earlier than planned, and which where there are several; None where it does not."""
    curation = find_curation(state)
    because = None if curation is None or curation.bilevel is None else curation.bilevel.base.course.because
    if because is None or not isinstance(state, RepeatedState):
        return because
    return f"seed {state.seed}: {because}"


def find_curation(state: Any) -> CurationState | None:
    """Return the state of the curation that runs, or ran last; None where the method does not learn."""
    current = state.current if isinstance(state, RepeatedState) else state
    return current if isinstance(current, CurationState) else None


def _count_preparation(state: Any) -> int:
    """Return the steps before the base training under way: smaller trainings, and what other seeds took."""
    before = state.num_done if isinstance(state, RepeatedState) else 0
    curation = find_curation(state)
    return before + (0 if curation is None else curation.num_steps_before)


def count_examples(options: CurationOptions, num_train: int) -> int:
    """Return how many examples one whole training puts through."""
    return options.epochs * num_train


def _plan_work(context: AttemptContext, data: JobData) -> None:
    """Tell how much work training and evaluating are."""
    training, evaluation = _count_work(context.document, data)
    context.progress.plan(Phase.TRAINING, training)
    context.progress.plan(Phase.EVALUATING, evaluation)


def _count_work(document: JobDocument, data: JobData) -> tuple[float, float]:
    """Return how much work training and evaluating are, in examples put through one plain step."""
    num_examples = count_examples(data.options, len(data.train))
    cost = count_plain_trainings(document.method)
    plan = plan_evaluation(document)
    training = 0.0 if document.method.name == "random" else num_examples * cost
    return training, (plan.num_plain + plan.num_method * cost) * num_examples
