"""Evaluating: arms are trained by equal steps and compared, baselines looked at, planted errors looked for."""

from functools import partial

from torch import Tensor

from sama_core import JSON
from sama_core.checkpoint import add_prefix, take_prefix
from service.jobs.state import Phase
from service.results.schemas import EvaluationSummary
from service.wording import write_count
from worker.checkpoints import Checkpoint
from worker.context import AttemptContext, StepBoundary
from worker.evaluation.runs import AbstractRun, Result
from worker.evaluation.summary import summarise
from worker.evaluation.workload import PlannedRun, Workload
from worker.phases.reading import JobData
from worker.phases.scoring import STAGE, Outcome, make_checkpoint

_DONE, _RUNNING = "done", "running"


def evaluate(
    context: AttemptContext, data: JobData, outcome: Outcome, saved: Checkpoint | None, boundary: StepBoundary
) -> EvaluationSummary | None:
    """Carry out every training of the evaluation; None where the document asks for none.

    Raises:
        AttemptStopped: a stop was asked for; finished trainings and the one under way are in a checkpoint.
        NonFiniteError: a loss stopped being finite.
    """
    if context.document.evaluation is None:
        return None
    workload = Workload(context.document, data, outcome, context.device)
    runs = workload.list_runs()
    purpose = "to compare" if workload.planting is None else "to compare and to look for planted errors"
    context.progress.enter_phase(Phase.EVALUATING, f"training {write_count(len(runs), 'network')} {purpose}")
    evaluator = _Evaluator(context, outcome, boundary, runs, workload.num_steps)
    if saved is not None and saved.stage == STAGE:
        evaluator.resume(saved)
    for run in runs:
        evaluator.carry_out(run)
    return summarise(data, outcome, workload, evaluator.results)


class _Evaluator:
    """Carries out the trainings and remembers what each one gave."""

    def __init__(
        self, context: AttemptContext, outcome: Outcome, boundary: StepBoundary, runs: list[PlannedRun], num_steps: int
    ) -> None:
        self._context, self._outcome, self._boundary = context, outcome, boundary
        self._places = {run.key: place for place, run in enumerate(runs)}
        self._costs = [run.cost for run in runs]
        self._num_steps = num_steps
        self.results: dict[str, Result] = {}
        self._partial: tuple[str, dict[str, Tensor], dict[str, JSON]] | None = None
        context.progress.plan(Phase.EVALUATING, sum(self._costs))

    def resume(self, saved: Checkpoint) -> None:
        """Take finished trainings, and the one that was under way, from a checkpoint."""
        for path, tensor in take_prefix(_DONE, saved.tensors).items():
            key, _, name = path.rpartition("/")
            self.results.setdefault(key, {})[name] = tensor
        running = saved.values.get("running")
        if running is not None:
            self._partial = running, take_prefix(_RUNNING, saved.tensors), saved.values["running_values"]

    def carry_out(self, planned: PlannedRun) -> None:
        """Do one training, unless that is done already."""
        place = self._places[planned.key]
        if planned.key not in self.results:
            run = planned.build(self.results)
            if self._partial is not None and self._partial[0] == planned.key:
                run.restore(*self._partial[1:])
            num_steps = self._step_to_end(planned, run)
            self.results[planned.key] = run.finish()
            self._tell(planned, place)
            self._boundary.save(self._make_checkpoint(num_steps, None, None))
        self._context.progress.advance(self._measure(place + 1, 0.0))

    def _step_to_end(self, planned: PlannedRun, run: AbstractRun) -> int:
        """Return the steps of this training and all before it, which numbers checkpoints: the method's, whose steps
        may be more than a plain training's, comes last."""
        place = self._places[planned.key]
        num_steps = place * self._num_steps
        while not run.is_done:
            report = run.step()
            done = self._measure(place, report.step / report.num_steps)
            num_steps = place * self._num_steps + report.step
            self._context.progress.advance(done, num_examples=report.num_examples)
            if not run.is_done:
                self._boundary.cross(partial(self._checkpoint_midway, planned, run, num_steps))
        return num_steps

    def _measure(self, place: int, share: float) -> float:
        """Return the share of the phase that is done: all trainings before `place`, and a share of that one."""
        current = self._costs[place] * share if share else 0.0
        return (sum(self._costs[:place]) + current) / sum(self._costs)

    def _tell(self, planned: PlannedRun, place: int) -> None:
        correct = self.results[planned.key].get("correct")
        found = "done" if correct is None else f"test accuracy {float(correct.double().mean()):.4f}"
        self._context.progress.add_event(
            "arm" if correct is not None else "audit", f"{planned.title}: {found} ({place + 1} of {len(self._costs)})"
        )

    def _checkpoint_midway(self, planned: PlannedRun, run: AbstractRun, num_steps: int) -> Checkpoint:
        return self._make_checkpoint(num_steps, planned.key, run.export())

    def _make_checkpoint(
        self, num_steps: int, key: str | None, export: tuple[dict[str, Tensor], dict[str, JSON]] | None
    ) -> Checkpoint:
        tensors: dict[str, Tensor] = {}
        for done, result in self.results.items():
            tensors |= add_prefix(f"{_DONE}/{done}", result)
        values: dict[str, JSON] = {}
        if key is not None and export is not None:
            tensors |= add_prefix(_RUNNING, export[0])
            values = {"running": key, "running_values": export[1]}
        return make_checkpoint(self._outcome, tensors, values, num_steps)
