"""How far an attempt is: phases, progress, rate, time left, curves and events, written at a bounded pace."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from sama_core import StepReport
from service.attempts.repository import AttemptRepository
from service.attempts.state import MetricPoint, Progress
from service.db.engine import Database
from service.jobs.state import Phase

MAX_METRIC_POINTS = 1000

# Shares of the whole job before anything was planned; training and evaluating are planned in steps.
_FIXED_UNITS: Mapping[Phase, float] = {
    Phase.VALIDATING: 1.0,
    Phase.READING: 1.0,
    Phase.TRAINING: 20.0,
    Phase.SCORING: 0.5,
    Phase.EVALUATING: 0.0,
    Phase.STORING: 0.5,
}
_EXAMPLES_PER_UNIT = 1000.0


class ProgressWriter:
    """The voice of one attempt. Every write is fenced; a refused one raises StaleAttemptError."""

    def __init__(
        self,
        database: Database,
        job_id: str,
        attempt: int,
        *,
        min_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._job_id = job_id
        self._attempt = attempt
        self._min_seconds = min_seconds
        self._clock = clock
        self._units = dict(_FIXED_UNITS)
        self._phase = Phase.VALIDATING
        self._fraction = 0.0
        self._pace = _Pace()
        self._points: list[tuple[StepReport, float | None]] = []
        self._last_meta: StepReport | None = None
        self._written_at = float("-inf")

    def enter_phase(self, phase: Phase, message: str) -> None:
        """Say that a phase begins; called exactly once per phase and attempt."""
        self.flush()
        self._phase, self._fraction, self._pace = phase, 0.0, _Pace()
        with self._database.write() as session:
            AttemptRepository(session).enter_phase(self._job_id, self._attempt, phase, message)
        self.flush()

    def plan(self, phase: Phase, num_examples: float) -> None:
        """Say how much work a phase is: examples put through one training step, or as dear as that."""
        self._units[phase] = num_examples / _EXAMPLES_PER_UNIT

    def advance(self, fraction: float, *, num_examples: int = 0) -> None:
        """Note that `fraction` (0..1) of the phase is done and `num_examples` more were put through."""
        self._pace.add(self._clock(), fraction, num_examples)
        self._fraction = fraction
        if self._clock() - self._written_at >= self._min_seconds:
            self.flush()

    def add_event(self, kind: str, message: str) -> None:
        """Write one event, in words, at once."""
        with self._database.write() as session:
            AttemptRepository(session).record(self._job_id, self._attempt, events=[(kind, message)])

    def add_report(self, report: StepReport) -> None:
        """Take a point of the curves, if the step is one of those that are kept; numbers are read when written."""
        if report.meta_loss is not None:
            self._last_meta = report
        stride = -(-report.num_steps // MAX_METRIC_POINTS)
        if report.step % stride == 0 or report.step == report.num_steps:
            self._points.append((self._fill_meta(report), self._pace.examples_per_second))

    def drop_metrics_after(self, step: int) -> None:
        """Forget points that a resumed solve is about to compute again."""
        with self._database.write() as session:
            AttemptRepository(session).drop_metrics_after(self._job_id, self._attempt, step)

    def flush(self) -> None:
        """Write what is due, now."""
        points, self._points = self._points, []
        progress = self._measure()
        metrics = [_read_point(report, rate) for report, rate in points]
        with self._database.write() as session:
            AttemptRepository(session).record(self._job_id, self._attempt, progress=progress, metrics=metrics)
        self._written_at = self._clock()

    def _fill_meta(self, report: StepReport) -> StepReport:
        """Give a step between two meta steps the values of the last meta step."""
        if report.meta_loss is not None or self._last_meta is None:
            return report
        last = self._last_meta
        return replace(report, meta_loss=last.meta_loss, hypergradient_norm=last.hypergradient_norm)

    def _measure(self) -> Progress:
        order = list(Phase)
        position = order.index(self._phase)
        done = sum(self._units[phase] for phase in order[:position]) + self._fraction * self._units[self._phase]
        total = sum(self._units.values())
        rate = self._pace.examples_per_second
        return Progress(
            progress=min(0.999, done / total),
            rate=rate,
            rate_unit="examples/s" if rate is not None else None,
            eta_seconds=self._estimate_left(total - done),
        )

    def _estimate_left(self, units_left: float) -> float | None:
        fractions_per_second = self._pace.fractions_per_second
        if not fractions_per_second or not self._units[self._phase]:
            return None
        return units_left / (fractions_per_second * self._units[self._phase])


class _Pace:
    """Examples and shares of a phase per second, over a window that moves with the work."""

    WINDOW_SECONDS = 20.0

    def __init__(self) -> None:
        self._marks: list[tuple[float, float, int]] = []
        self._num_examples = 0

    def add(self, now: float, fraction: float, num_examples: int) -> None:
        """Note the time, the share of the phase done and the examples put through since the last note."""
        self._num_examples += num_examples
        self._marks.append((now, fraction, self._num_examples))
        while len(self._marks) > 2 and now - self._marks[1][0] > self.WINDOW_SECONDS:
            self._marks.pop(0)

    @property
    def examples_per_second(self) -> float | None:
        """Examples per second over the window; None before two notes, or where no examples are counted."""
        seconds = self._span()
        num_examples = self._marks[-1][2] - self._marks[0][2] if seconds else 0
        return num_examples / seconds if num_examples else None

    @property
    def fractions_per_second(self) -> float | None:
        """Share of the phase per second over the window; None before two notes."""
        seconds = self._span()
        return (self._marks[-1][1] - self._marks[0][1]) / seconds if seconds else None

    def _span(self) -> float:
        return self._marks[-1][0] - self._marks[0][0] if len(self._marks) > 1 else 0.0


def _read_point(report: StepReport, rate: float | None) -> MetricPoint:
    return MetricPoint(
        step=report.step,
        base_loss=float(report.base_loss),
        meta_loss=None if report.meta_loss is None else float(report.meta_loss),
        hypergradient_norm=None if report.hypergradient_norm is None else float(report.hypergradient_norm),
        effective_sample_size=float(report.effective_sample_size),
        examples_per_second=rate,
    )
