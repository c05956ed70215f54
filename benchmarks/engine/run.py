"""The section from its command line to its report."""

import importlib.util
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.engine.arms import ROUTES, find_arms
from benchmarks.engine.betty import KINDS, describe_betty
from benchmarks.engine.memory import measure_memory
from benchmarks.engine.ours import explain_route
from benchmarks.engine.plan import Plan, parse_plan
from benchmarks.engine.problems import PROBLEMS
from benchmarks.engine.record import Record
from benchmarks.engine.report import format_report, read_records, write_records
from benchmarks.engine.setting import Setting
from benchmarks.engine.timing import measure_times
from benchmarks.machine import describe_machine


def run(arguments: Sequence[str] = (), out: Path | None = None) -> str:
    """Measure what the arguments ask for and return the report; results go to ``out`` where it is given."""
    plan = parse_plan(arguments, out)
    started = time.monotonic()
    records: dict[str, Record] = {}
    for setting in plan.settings:
        if setting.problem.startswith("bert") and importlib.util.find_spec("transformers") is None:
            _say(f"{setting.problem}: left out; transformers is not installed", started)
            continue
        record = _measure(setting, plan, started)
        records[record.key] = record
        if plan.out is not None:
            write_records(plan.out, {**read_records(plan.out), record.key: record})
    minutes = (time.monotonic() - started) / 60
    kept = records if plan.out is None else read_records(plan.out)
    return f"{format_report(list(kept.values()))}\n\nMeasured in {minutes:.1f} minutes."


def _measure(setting: Setting, plan: Plan, started: float) -> Record:
    arms, notes = find_arms(plan.choose_arms(setting))
    record = Record(setting, PROBLEMS[setting.problem].title, _describe_origin(arms), notes=notes)
    if "auto" in arms:
        record.notes.append(f"The automatic route here: {explain_route(setting)}.")
    if "time" in plan.parts:
        _say(f"{record.key}: time of {', '.join(arms)}", started)
        timings = measure_times(setting, {arm: plan.count_repeats(setting, arm) for arm in arms}, plan.clock)
        record.plain_ms = [1000 * seconds for seconds in timings.plain_seconds]
        record.ratios = timings.ratios
        record.notes += timings.notes
        if plan.clock != "wall":
            record.notes.append("Times are processor times, not those of the clock on the wall.")
        _say(f"{record.key}: {_summarize(timings.ratios)}", started)
    if "memory" in plan.parts:
        _say(f"{record.key}: peak memory", started)
        record.memory = {arm: asdict(peak) for arm, peak in measure_memory(setting, arms).items()}
    if "cosine" in plan.parts and setting.precision == "float32":
        _say(f"{record.key}: cosines", started)
        _measure_cosines(record, arms, plan.count_probes(setting))
    return record


def _measure_cosines(record: Record, arms: Sequence[str], num_probes: int) -> None:
    from benchmarks.engine.betty_exactness import measure_betty
    from benchmarks.engine.exactness import measure_ours, measure_unrolled

    setting = record.setting
    routes = [route for route in ROUTES if route in arms]
    if "auto" in arms or routes:
        record.cosines, notes = measure_ours(setting, num_probes, routes)
        record.notes += [note for note in notes if not any(note in known for known in record.notes)]
    if "evidence" in arms and setting.problem != "resnet":  # minutes more, for a cosine that differs little
        record.cosines["evidence"] = measure_ours(setting, num_probes, features=None)[0]["auto"]
    kinds = [kind for kind in KINDS if f"betty-{kind}" in arms]
    if kinds:
        found = measure_betty(setting, num_probes, kinds)
        record.cosines |= {f"betty-{kind}": found[kind] for kind in kinds}
    if "every-step" in arms and PROBLEMS[setting.problem].is_small:
        record.unrolled_cosines = measure_unrolled(setting, num_probes)


def _describe_origin(arms: Sequence[str]) -> str:
    return describe_machine() + (f"; {describe_betty()}" if any(arm.startswith("betty-") for arm in arms) else "")


def _summarize(ratios: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    return "; ".join(
        f"unroll {unroll}: " + ", ".join(f"{arm} {statistics.median(found):.2f}" for arm, found in arms.items())
        for unroll, arms in ratios.items()
    )


def _say(text: str, started: float) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)
