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
_PATIENCE = 0.1
_KEPT_BACK = 0.1
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
    """The time that is left to a job, all its attempts together."""

    def __init__(
        self,
        max_seconds: float,
        used_seconds: float,
        started_at: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_seconds = max_seconds
        self._ends_at = started_at + max_seconds - used_seconds
        self._clock = clock

    @property
    def seconds_left(self) -> float:
        """Seconds from now to the end."""
        return self._ends_at - self._clock()


class ScheduleTooLongError(Exception):
    """The training under way would outlast the budget; `cut` is how to begin it anew."""

    def __init__(self, cut: ScheduleCut) -> None:
        super().__init__(str(cut))
        self.cut = cut


@dataclass(frozen=True)
class _Mark:
    step: int
    at: float


class ScheduleWatch:
    """Measures the first steps of a training and ends it where the schedule does not fit the budget.

    It looks at 20 steps after the warm-up (whole rounds of base steps and their meta step), or at as many as fit into
    a tenth of the budget.

    Args:
        budget: what is left.
        epochs: of the schedule.
        warmup_steps: steps before the first meta step.
        unroll_steps: base steps to a meta step.
        cost: of an average step with its share of the meta step, in steps of plain training; for a budget that has
            room for warm-up steps alone.
        evaluation: work of the evaluation as a share of the training's.
        finish_steps: waits for the device to finish the steps it was given.
        clock: seconds.
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
        finish_steps: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget, self._epochs, self._cost, self._evaluation = budget, epochs, cost, evaluation
        self._warmup_steps, self._unroll_steps = warmup_steps, unroll_steps
        self._num_wanted = -(-_NUM_MEASURED // unroll_steps) * unroll_steps
        self._finish_steps, self._clock = finish_steps, clock
        self._began_at, self._patience = clock(), _PATIENCE * budget.seconds_left
        self._first: _Mark | None = None
        self._warm: _Mark | None = None
        self.is_settled = False

    def see(self, report: StepReport) -> None:
        """Take note of a step just done.

        Raises:
            ScheduleTooLongError: the schedule does not fit, a shorter one does.
            ServiceError: `time_limit`; not even one epoch fits.
        """
        if self.is_settled:
            return
        if self._first is None:
            self._first = self._mark(report.step)
        elif self._warm is None and report.step >= self._warmup_steps:
            self._warm = self._mark(report.step)
        else:
            has_enough = self._warm is not None and report.step - self._warm.step >= self._num_wanted
            if has_enough or self._clock() - self._began_at > self._patience:
                self._decide(report)

    def _mark(self, step: int) -> _Mark:
        self._finish_steps()
        return _Mark(step, self._clock())

    def _decide(self, report: StepReport) -> None:
        assert self._first is not None
        now = self._mark(report.step)
        seconds, least = self._measure(self._first, now)
        left = self._budget.seconds_left
        total = seconds * report.num_steps * (1.0 + self._evaluation)
        ahead = total - seconds * report.step
        if ahead <= (left if self._epochs == 1 else (1.0 - _KEPT_BACK) * left):
            self.is_settled = True
            return
        per_epoch = total / self._epochs
        preparing = self._first.at - self._began_at
        fitting = int(((1.0 - _KEPT_BACK) * left - preparing) / per_epoch)
        if fitting < 1 and per_epoch * least / seconds > left - (0.0 if self._epochs == 1 else preparing):
            raise _refuse(per_epoch + preparing + self._budget.max_seconds - left, left)
        if self._epochs == 1:
            self.is_settled = True
            return
        what = "training and evaluating" if self._evaluation else "training"
        because = (
            f"{what} {self._epochs:,} epochs would take about {total:,.0f} s, "
            f"and of limits.max_seconds {max(0.0, left):,.0f} s are left"
        )
        raise ScheduleTooLongError(ScheduleCut(min(max(1, fitting), self._epochs - 1), self._epochs, because))

    def _measure(self, first: _Mark, now: _Mark) -> tuple[float, float]:
        """Return the seconds of an average step, and the seconds that it takes at least."""
        warm = self._warm
        if warm is not None and now.step - warm.step >= self._unroll_steps:
            seconds = (now.at - warm.at) / (now.step - warm.step)
            return seconds, seconds
        plain = (now.at - first.at) / (now.step - first.step)
        return self._cost * plain, plain


def _refuse(seconds_needed: float, seconds_left: float) -> ServiceError:
    return ServiceError(
        "time_limit",
        f"Not even one epoch fits the job's time limit: {max(0.0, seconds_left):,.0f} s of it are left.",
        param="limits.max_seconds",
        hint=f"Raise limits.max_seconds to about {seconds_needed * 1.2:,.0f}, take a smaller model, or fewer rows.",
    )
