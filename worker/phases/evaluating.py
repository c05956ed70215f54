"""Evaluating: the arms are trained by equal steps, with several seeds, and compared on the test set."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core import JSON
from sama_core.errors import NonFiniteError
from sama_core.training import PlainTrainer, TrainingState, predict
from service.jobs.state import Phase
from service.results.schemas import ArmSummary, EvaluationSummary
from worker.checkpoints import Checkpoint
from worker.context import AttemptContext, StepBoundary
from worker.evaluation.arms import Arm, ArmName, ArmPlan
from worker.evaluation.statistics import describe_method, estimate_mean
from worker.evaluation.verdict import compare_arms, write_verdict
from worker.phases.reading import JobData
from worker.phases.scoring import STAGE, Outcome, make_checkpoint

_CORRECT, _RUNNING = "correct/", "running/"


@dataclass(frozen=True)
class ArmRun:
    """One training of one arm: its seed, and its place among all of them."""

    arm: ArmName
    seed: int
    index: int

    @property
    def key(self) -> str:
        """Name of the run in a checkpoint."""
        return f"{self.arm}/{self.seed}"


def evaluate(
    context: AttemptContext, data: JobData, outcome: Outcome, saved: Checkpoint | None, boundary: StepBoundary
) -> EvaluationSummary | None:
    """Train and compare the arms; None where the document asks for no evaluation.

    Raises:
        AttemptStopped: a stop was asked for; finished arms and the one under way are in a checkpoint.
        NonFiniteError: the loss of an arm stopped being finite.
    """
    if context.document.evaluation is None:
        return None
    runs = list_runs(context)
    context.progress.enter_phase(Phase.EVALUATING, f"training {len(runs)} networks to compare on the test set")
    evaluator = _Evaluator(context, data, outcome, boundary, len(runs))
    if saved is not None and saved.stage == STAGE:
        evaluator.resume(saved)
    for run in runs:
        evaluator.carry_out(run)
    return evaluator.summarise(runs)


def list_runs(context: AttemptContext) -> list[ArmRun]:
    """Return every training of the evaluation in order: seed by seed, so that arms are paired early on."""
    wanted = context.document.evaluation
    assert wanted is not None
    first = context.document.training.seed + 1
    pairs = [(seed, arm) for seed in range(first, first + wanted.seeds) for arm in wanted.arms]
    return [ArmRun(arm, seed, index) for index, (seed, arm) in enumerate(pairs)]


class _Evaluator:
    """Carries out the runs and remembers which test examples each one got right."""

    def __init__(
        self, context: AttemptContext, data: JobData, outcome: Outcome, boundary: StepBoundary, num_runs: int
    ) -> None:
        assert data.test is not None
        self._context, self._data, self._outcome, self._boundary = context, data, outcome, boundary
        self._num_runs = num_runs
        self._test = data.test
        options = data.options
        self._num_steps = -(-len(data.train) // options.batch_size) * options.epochs
        weight = None if context.document.task == "prune" else outcome.decisions.weight
        self._plan = ArmPlan(outcome.kept, weight)
        self._correct: dict[str, NDArray[np.uint8]] = {}
        self._partial: tuple[str, dict[str, Tensor], dict[str, JSON]] | None = None

    def resume(self, saved: Checkpoint) -> None:
        """Take finished runs, and the one that was under way, from a checkpoint."""
        for name, tensor in saved.tensors.items():
            if name.startswith(_CORRECT):
                self._correct[name.removeprefix(_CORRECT)] = tensor.numpy()
        key = saved.values.get("running")
        if key is not None:
            tensors = {n.removeprefix(_RUNNING): t for n, t in saved.tensors.items() if n.startswith(_RUNNING)}
            self._partial = key, tensors, saved.values["running_values"]

    def carry_out(self, run: ArmRun) -> None:
        """Train one arm with one seed, unless that is done already."""
        if run.key in self._correct:
            self._context.progress.advance((run.index + 1) / self._num_runs)
            return
        arm = self._plan.make(run.arm, run.seed)
        trainer = PlainTrainer(replace(self._data.options, seed=run.seed))
        state = self._start(trainer, arm, run)
        self._step_to_end(trainer, state, run)
        if state.base.status.is_failure:
            raise NonFiniteError(f"arm {run.arm}: {state.base.status.message}", state.base.status.step)
        logits = predict(state.network, self._test, device=self._context.device)
        self._correct[run.key] = (logits.argmax(1) == self._test.labels).numpy().astype(np.uint8)
        accuracy = float(self._correct[run.key].mean())
        self._context.progress.add_event(
            "arm", f"arm {run.arm}, seed {run.seed}: test accuracy {accuracy:.4f} ({run.index + 1} of {self._num_runs})"
        )
        self._boundary.save(self._make_checkpoint((run.index + 1) * self._num_steps, None, None))

    def _start(self, trainer: PlainTrainer, arm: Arm, run: ArmRun) -> TrainingState:
        state = trainer.init(
            self._data.builder.build(run.seed),
            self._data.train,
            self._context.device,
            rows=torch.from_numpy(arm.rows),
            weights=None if arm.weights is None else torch.from_numpy(arm.weights),
            num_steps=self._num_steps,
        )
        if self._partial is not None and self._partial[0] == run.key:
            trainer.restore(state, *self._partial[1:])
        return state

    def _step_to_end(self, trainer: PlainTrainer, state: TrainingState, run: ArmRun) -> None:
        while not trainer.is_done(state):
            report = trainer.step(state)
            done = (run.index + report.step / report.num_steps) / self._num_runs
            self._context.progress.advance(done, num_examples=report.num_examples)
            if not trainer.is_done(state):
                num_steps = run.index * self._num_steps + report.step
                self._boundary.cross(partial(self._checkpoint_midway, trainer, state, run, num_steps))

    def _checkpoint_midway(
        self, trainer: PlainTrainer, state: TrainingState, run: ArmRun, num_steps: int
    ) -> Checkpoint:
        return self._make_checkpoint(num_steps, run, trainer.export(state))

    def _make_checkpoint(
        self, num_steps: int, run: ArmRun | None, export: tuple[dict[str, Tensor], dict[str, JSON]] | None
    ) -> Checkpoint:
        tensors = {f"{_CORRECT}{key}": torch.from_numpy(right) for key, right in self._correct.items()}
        values: dict[str, JSON] = {}
        if run is not None and export is not None:
            tensors |= {f"{_RUNNING}{name}": tensor for name, tensor in export[0].items()}
            values = {"running": run.key, "running_values": export[1]}
        return make_checkpoint(self._outcome, tensors, values, num_steps)

    def summarise(self, runs: list[ArmRun]) -> EvaluationSummary:
        """Return accuracies with intervals, paired differences, and the verdict in words."""
        arms: list[ArmName] = list(dict.fromkeys(run.arm for run in runs))
        seeds = list(dict.fromkeys(run.seed for run in runs))
        correct = {arm: np.stack([self._correct[f"{arm}/{seed}"] for seed in seeds]) for arm in arms}
        comparisons = compare_arms(correct)
        return EvaluationSummary(
            num_test=len(self._test),
            seeds=seeds,
            arms=[self._summarise_arm(self._plan.make(arm, seeds[0]), correct[arm]) for arm in arms],
            comparisons=comparisons,
            interval_method=describe_method(len(seeds)),
            verdict=write_verdict(comparisons),
        )

    def _summarise_arm(self, arm: Arm, right_ST: NDArray[np.uint8]) -> ArmSummary:
        estimate = estimate_mean(right_ST, (0.0, 1.0))
        return ArmSummary(
            arm=arm.name,
            trained_on=arm.trained_on,
            num_rows=len(arm.rows),
            num_steps=self._num_steps,
            accuracy=[float(accuracy) for accuracy in right_ST.mean(axis=1)],
            mean=estimate.mean,
            interval=estimate.interval,
        )
