"""A budget in place of epochs: where the first steps show that a job would outlast its time, it trains for fewer.

The decision is made once, before the real start: the training then begins anew as if the document had asked for that
many epochs, so its result is the one that such a document gives. A job whose time suffices is not touched at all.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sama_core import JSON, StepReport
from service.errors import ServiceError

_NUM_MEASURED = 20
_CALM, _PATIENCE = 0.02, 0.1
# Of the time that is left: for a schedule to pass, and where one is cut anyway, so that it passes the next look, too.
_KEPT_BACK, _KEPT_BACK_BY_CUT = 0.1, 0.2
_KEY, _SETTLED_KEY = "schedule", "is_schedule_settled"


@dataclass(frozen=True)
class ScheduleCut:
    """That a training takes fewer epochs than it would have, and why."""

    epochs: int
    wanted: int
    because: str

    def __str__(self) -> str:
        return f"epochs {self.wanted} -> {self.epochs}: {self.because}"

    def to_json(self) -> dict[str, JSON]:
        """Return the cut as it stands in checkpoints and in the facts."""
        return asdict(self)


def find_cut(values: Mapping[str, Any]) -> ScheduleCut | None:
    """Return the cut that an earlier attempt left in the values of a checkpoint, of whatever stage."""
    found = values.get(_KEY) or values.get("facts", {}).get(_KEY)
    return None if found is None else ScheduleCut(**found)


def is_settled(values: Mapping[str, Any]) -> bool:
    """Tell whether the attempt that made a checkpoint had settled the number of epochs."""
    return bool(values.get(_SETTLED_KEY))


def describe_schedule(cut: ScheduleCut | None, *, is_settled: bool) -> dict[str, JSON]:
    """Return what a checkpoint of the training says of the schedule."""
    described: dict[str, JSON] = {_SETTLED_KEY: True} if is_settled else {}
    return described if cut is None else {**described, _KEY: cut.to_json()}


class Budget:
    """The time that is left to a job, all its attempts together: `max_seconds` in all, and it ends at `ends_at`."""

    def __init__(self, max_seconds: float, ends_at: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_seconds = max_seconds
        self._ends_at = ends_at
        self._clock = clock

    @property
    def seconds_left(self) -> float:
        """Seconds from now to the end."""
        return self._ends_at - self._clock()


class ScheduleTooLongError(Exception):
    """The training under way would outlast the budget.

    Attributes:
        cut: how to begin it anew.
        is_final: false where only the preparation was timed: the training begun anew is to be watched again.
    """

    def __init__(self, cut: ScheduleCut, *, is_final: bool) -> None:
        super().__init__(str(cut))
        self.cut, self.is_final = cut, is_final


@dataclass(frozen=True)
class _Mark:
    step: int
    at: float


@dataclass(frozen=True)
class _Forecast:
    """Seconds that a schedule takes in all, that still lie ahead, and that it takes at least where that is less sure.

    `fixed` seconds come on top whatever the number of epochs.
    """

    total: float
    ahead: float
    least: float
    fixed: float
    is_final: bool


class ScheduleWatch:
    """Measures the first steps of a training and ends it where the schedule does not fit the budget.

    It looks at 20 steps after the warm-up (whole rounds of base steps and their meta step), at more where these take
    less than a fiftieth of the budget, at fewer where they take more than a tenth of it. Where smaller trainings come
    before, as many of these already tell of one far too long.

    Args:
        budget: what is left.
        epochs: of the schedule.
        warmup_steps: steps before the first meta step.
        unroll_steps: base steps to a meta step.
        cost: of an average step with its share of the meta step, in steps of plain training; for what is known of
            plain steps alone.
        evaluation: work of the evaluation as a share of the training's.
        closing: seconds that come on top whatever the number of epochs, after the steps: the decisions.
        finish_steps: waits for the device to finish the steps it was given.
        clock: seconds.

    Attributes:
        is_settled: the schedule fits; there is nothing more to watch.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        epochs: int,
        warmup_steps: int,
        unroll_steps: int,
        cost: float,
        evaluation: float,
        closing: float = 0.0,
        finish_steps: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget, self._epochs, self._cost, self._evaluation = budget, epochs, cost, evaluation
        self._closing = closing
        self._warmup_steps, self._unroll_steps = warmup_steps, unroll_steps
        self._num_wanted = -(-_NUM_MEASURED // unroll_steps) * unroll_steps
        self._finish_steps, self._clock = finish_steps, clock
        self._began_at, left = clock(), budget.seconds_left
        self._calm, self._patience = _CALM * left, _PATIENCE * left
        self._used_before = budget.max_seconds - left
        self._fixed: float | None = None
        self._prepared: _Mark | None = None
        self._is_preparation_known = False
        self._first: _Mark | None = None
        self._warm: _Mark | None = None
        self.is_settled = False

    def see(self, report: StepReport, num_before: int = 0) -> None:
        """Take note of a step just done; the first `num_before` of all steps prepare the training.

        Raises:
            ScheduleTooLongError: the schedule does not fit, a shorter one does.
            ServiceError: `time_limit`; not even one epoch fits.
        """
        if self.is_settled:
            return
        if self._fixed is None:
            self._fixed = self._clock() - self._began_at
        if report.step <= num_before:
            self._see_preparation(report, num_before)
        else:
            self._see_training(report.step - num_before, report.num_steps - num_before)

    def _see_preparation(self, report: StepReport, num_before: int) -> None:
        if self._prepared is None:
            self._prepared = self._mark(report.step)
            return
        num_seen = report.step - self._prepared.step
        is_enough = num_seen >= _NUM_MEASURED and self._clock() - self._prepared.at >= self._calm
        if self._is_preparation_known or not (is_enough or self._is_impatient):
            return
        self._is_preparation_known = True
        seconds = (self._mark(report.step).at - self._prepared.at) / num_seen
        plain = num_before + (report.num_steps - num_before) * (1.0 + self._evaluation)
        total = seconds * (num_before + self._cost * (plain - num_before))
        ahead = total - seconds * report.step
        self._decide(_Forecast(total, ahead, seconds * plain, self._fixed or 0.0, is_final=False))

    def _see_training(self, step: int, num_steps: int) -> None:
        if self._first is None:
            self._first = self._mark(step)
        elif self._warm is None and step >= self._warmup_steps:
            self._warm = self._mark(step)
        elif self._has_seen_enough(step) or self._is_impatient:
            self._forecast_training(self._first, self._mark(step), num_steps)

    def _has_seen_enough(self, step: int) -> bool:
        warm = self._warm
        if warm is None or step - warm.step < self._num_wanted or (step - warm.step) % self._unroll_steps:
            return False
        return self._clock() - warm.at >= self._calm

    @property
    def _is_impatient(self) -> bool:
        """True once a tenth of the budget was spent on looking."""
        return self._clock() - self._began_at > self._patience

    def _mark(self, step: int) -> _Mark:
        self._finish_steps()
        return _Mark(step, self._clock())

    def _forecast_training(self, first: _Mark, now: _Mark, num_steps: int) -> None:
        warm = self._warm
        if warm is not None and now.step - warm.step >= self._unroll_steps:
            seconds = least = (now.at - warm.at) / (now.step - warm.step)
        else:
            least = (now.at - first.at) / (now.step - first.step)
            seconds = self._cost * least
        preparing = 0.0 if self._prepared is None else first.at - self._prepared.at
        in_all = num_steps * (1.0 + self._evaluation)
        ahead = seconds * (in_all - now.step)
        fixed = self._fixed or 0.0
        self._decide(_Forecast(preparing + seconds * in_all, ahead, preparing + least * in_all, fixed, is_final=True))

    def _decide(self, forecast: _Forecast) -> None:
        left, epochs = self._budget.seconds_left - self._closing, self._epochs
        if forecast.ahead <= (1.0 - _KEPT_BACK) * left:
            self.is_settled = forecast.is_final
            return
        fitting = int(((1.0 - _KEPT_BACK_BY_CUT) * left - forecast.fixed) * epochs / forecast.total)
        # One epoch that is under way only needs its rest, several begin anew.
        again = 0.0 if epochs == 1 else forecast.fixed
        least = forecast.least * (forecast.ahead / forecast.total if epochs == 1 else 1.0 / epochs)
        # What the decisions take is less sure than what the steps do: nothing is refused for that.
        if fitting < 1 and least > left + self._closing - again:
            needed = forecast.total / epochs + self._budget.max_seconds - left
            raise _refuse(needed, left + self._closing, self._used_before, self._budget.max_seconds)
        if epochs == 1:
            self.is_settled = forecast.is_final
            return
        what = "training and evaluating" if self._evaluation else "training"
        because = (
            f"{what} {epochs:,} epochs would take about {forecast.total + self._closing:,.0f} s, "
            f"and of limits.max_seconds {max(0.0, left + self._closing):,.0f} s are left"
        )
        cut = ScheduleCut(min(max(1, fitting), epochs - 1), epochs, because)
        raise ScheduleTooLongError(cut, is_final=forecast.is_final)


def _refuse(seconds_needed: float, seconds_left: float, seconds_before: float, max_seconds: float) -> ServiceError:
    return ServiceError(
        "time_limit",
        f"Not even one epoch fits the job's time limit: {max(0.0, seconds_left):,.0f} s of it are left; what came "
        f"before the training took {seconds_before:,.1f} s of {max_seconds:,.0f} s.",
        param="limits.max_seconds",
        hint=f"Raise limits.max_seconds to about {seconds_needed * 1.2:,.0f}, take a smaller model, or fewer rows.",
    )
