"""Training: the curation method's own steps, with progress, curves, checkpoints and an exact resume."""

from dataclasses import dataclass
from typing import Any

import torch

from sama_core import AbstractMethod, CurationOptions, build_method
from sama_core.bilevel import BilevelState
from sama_core.exchange import AbstractExchange
from service.jobs.state import Phase
from service.storage.estimates import count_plain_steps
from worker.checkpoints import Checkpoint
from worker.context import AttemptContext, StepBoundary
from worker.phases.reading import JobData
from worker.phases.sharing import share_training

STAGE = "training"


@dataclass(frozen=True)
class FinishedTraining:
    """The method and its state after the last step."""

    method: AbstractMethod[Any]
    state: Any


def train(
    context: AttemptContext, data: JobData, saved: Checkpoint | None, boundary: StepBoundary
) -> FinishedTraining | None:
    """Drive the method to its last step; None where a checkpoint from after the training makes that needless.

    Raises:
        AttemptStopped: a stop was asked for; a checkpoint is saved.
    """
    _plan_work(context, data)
    if saved is not None and saved.stage != STAGE:
        context.progress.enter_phase(Phase.TRAINING, "training was finished by an earlier attempt")
        return None
    context.progress.enter_phase(Phase.TRAINING, f"training with method {context.document.method.name}")
    with share_training(context, data, saved) as exchange:
        method, state = start_method(data, context.device, saved, exchange)
        if isinstance(state, BilevelState):
            context.progress.add_event("route", f"directional derivatives by {state.route_reason}")
        if saved is not None:
            context.progress.drop_metrics_after(saved.step)
        _step_to_end(context, method, state, boundary)
    return FinishedTraining(method, state)


def start_method(
    data: JobData, device: torch.device, saved: Checkpoint | None, exchange: AbstractExchange
) -> tuple[AbstractMethod[Any], Any]:
    """Return the method and its state before the step to come; the same in every process that shares the training."""
    method = build_method(data.method_name, data.options, exchange)
    state = method.init(data.builder.build(data.options.seed), data.train, data.meta, device)
    if saved is not None:
        method.restore(state, saved.tensors, saved.values)
    return method, state


def _step_to_end(context: AttemptContext, method: AbstractMethod[Any], state: Any, boundary: StepBoundary) -> None:
    progress, step = context.progress, 0

    def make_checkpoint() -> Checkpoint:
        tensors, values = method.export(state)
        return Checkpoint(STAGE, step, tensors, values)

    while not method.is_done(state):
        report = method.step(state)
        step = report.step
        progress.add_report(report)
        progress.advance(step / report.num_steps, num_examples=report.num_examples)
        if not method.is_done(state):
            boundary.cross(make_checkpoint)
    if step:
        boundary.save(make_checkpoint())


def count_examples(options: CurationOptions, num_train: int) -> int:
    """Return how many examples one whole training puts through."""
    return options.epochs * num_train


def _plan_work(context: AttemptContext, data: JobData) -> None:
    """Tell how much work training and evaluating are, in examples put through one plain step."""
    document = context.document
    num_examples = count_examples(data.options, len(data.train))
    cost = count_plain_steps(document.method)
    context.progress.plan(Phase.TRAINING, 0.0 if document.method.name == "random" else num_examples * cost)
    if document.evaluation is not None:
        num_trainings = len(document.evaluation.arms) * document.evaluation.seeds
        context.progress.plan(Phase.EVALUATING, num_trainings * num_examples)
