"""Time per base step as a multiple of plain training.

Arms take turns within each repeat, in an order shuffled anew, and each ratio is taken within its repeat: a machine
whose speed drifts favours no arm.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from benchmarks.engine.arms import ARMS
from benchmarks.engine.problems import PROBLEMS
from benchmarks.engine.setting import NEVER, PERIOD, ArmUnavailableError, Setting, Step


@dataclass
class Timings:
    """What was measured of one network and optimizer.

    Attributes:
        ratios: time per base step over that of plain training by unroll and arm, one number a repeat.
        plain_seconds: of a plain step, one number a repeat.
        notes: why arms are missing.
    """

    ratios: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    plain_seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Runner:
    """One arm, ready to run.

    Attributes:
        step: does one base step.
        num_steps: base steps per timing.
        num_repeats: repeats that it takes part in.
    """

    step: Step
    num_steps: int
    num_repeats: int


_COMPOSED = (
    f"Time after each {PERIOD}th here: {PERIOD - 1} ordinary steps and one with a meta step, each timed by itself, "
    "because whole periods would take too long."
)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def measure_times(setting: Setting, repeats: Mapping[str, int], clock: str = "wall") -> Timings:
    """Time the arms with a meta step after each base step, and after each tenth.

    Args:
        setting: network and optimizer; its unroll is not used.
        repeats: of each arm; plain training among them.
        clock: of ``CLOCKS``; the processor time of one thread is what a busy machine leaves to be measured.
    """
    problem = PROBLEMS[setting.problem]
    is_fast = setting.device == "cuda"
    num_steps, num_periods = (30, 3) if is_fast else (problem.steps, problem.count_periods(setting.optimizer))
    timings = Timings()

    def measure(unroll: int, count: Mapping[str, int], steps: int) -> dict[str, list[float]]:
        return _take_turns(setting, _build_runners(replace(setting, unroll=unroll), count, steps, timings), clock)

    seconds = measure(1, repeats, num_steps)
    timings.plain_seconds = seconds["plain"]
    timings.ratios[1] = _divide(seconds)
    counts = {arm: count for arm, count in repeats.items() if ARMS[arm].is_main or problem.main_optimizer is None}
    if num_periods:
        timings.ratios[PERIOD] = _divide(measure(PERIOD, counts, num_periods * PERIOD))
    else:
        between = _divide(measure(NEVER, counts, 1))
        due = timings.ratios[1]
        timings.ratios[PERIOD] = {arm: compose_period(between[arm], due[arm]) for arm in between if arm in due}
        timings.notes.append(_COMPOSED)
    return timings


def compose_period(ordinary: list[float], due: list[float]) -> list[float]:
    """Return the time per base step of a period: nine ordinary steps and one with a meta step.

    >>> compose_period([1.0], [2.0])
    [1.1]
    """
    return [((PERIOD - 1) * low + high) / PERIOD for low, high in zip(ordinary, due, strict=False)]


def _build_runners(
    setting: Setting, repeats: Mapping[str, int], num_steps: int, timings: Timings
) -> dict[str, _Runner]:
    runners = {}
    for arm, count in repeats.items():
        if min(setting.unroll, PERIOD) not in ARMS[arm].unrolls:
            continue
        try:
            runners[arm] = _Runner(ARMS[arm].build(setting), num_steps, count)
        except ArmUnavailableError as exc:
            note = f"{ARMS[arm].title}: {exc}"
            timings.notes += [] if note in timings.notes else [note]
    return runners


def _take_turns(setting: Setting, runners: Mapping[str, _Runner], clock: str) -> dict[str, list[float]]:
    """Return the seconds per base step of each arm, one number a repeat."""
    for runner in runners.values():
        for _ in range(min(2 * PERIOD, -(-runner.num_steps // 3))):
            runner.step()
    order = random.Random(0)
    seconds: dict[str, list[float]] = {arm: [] for arm in runners}
    for repeat in range(max(runner.num_repeats for runner in runners.values())):
        present = [arm for arm, runner in runners.items() if repeat < runner.num_repeats]
        for arm in order.sample(present, len(present)):
            seconds[arm].append(_time_steps(setting, runners[arm], CLOCKS[clock]))
    return seconds


def _time_steps(setting: Setting, runner: _Runner, read_clock: Callable[[], float]) -> float:
    gc.collect()
    setting.synchronize()
    start = read_clock()
    for _ in range(runner.num_steps):
        runner.step()
    setting.synchronize()
    return (read_clock() - start) / runner.num_steps


def _divide(seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Return each arm's seconds over plain training's of the same repeat."""
    plain = seconds["plain"]
    return {
        arm: [own / base for own, base in zip(measured, plain, strict=False)]
        for arm, measured in seconds.items()
        if arm != "plain"
    }
