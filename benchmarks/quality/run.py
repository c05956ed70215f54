"""The section from its command line to its report."""

import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.quality.crew import Crew
from benchmarks.quality.journal import Journal, JournalError
from benchmarks.quality.output import refresh_document, write_results
from benchmarks.quality.plan import Plan, parse_plan
from benchmarks.quality.reading import find_missing
from benchmarks.quality.sets import SETS
from benchmarks.quality.unit import PREPARED, Unit
from benchmarks.tables import format_table


def run(arguments: Sequence[str] = (), out: Path | None = None) -> str:
    """Measure what the arguments ask for and return the tables.

    Units' figures go below the plan's own folder as they come; the tables there too, and those of a run that leaves
    nothing out to ``out`` and into the document of the results.
    """
    if not arguments and "SAMA_REAL_DATA" not in os.environ:
        return "Left out: SAMA_REAL_DATA is not set; wanted the folder of the data sets."
    plan = parse_plan(arguments)
    if plan.forecast_only:
        return _format_forecast(plan)
    missing = [path for name in _list_sets(plan) if (path := find_missing(SETS[name], plan.place.data))]
    if missing:
        sys.exit(f"error: --data: {missing[0]} is not there, nor a data.parquet beside it")
    origin = f"{describe_machine()}; {plan.workers} processes of {plan.place.threads} threads"
    try:
        journal = Journal(plan.out, plan.setting, origin, resume=plan.resume)
    except JournalError as exc:
        sys.exit(f"error: {exc}")
    if not plan.resume:  # what an earlier run shared among its units may be of other code
        shutil.rmtree(plan.place.cache, ignore_errors=True)
    shutil.rmtree(plan.place.cache / PREPARED, ignore_errors=True)  # pickles: none is read that this run did not write
    units = [unit for unit in plan.units if journal.lacks(unit)]
    minutes = _carry_out(plan, units, journal)
    text = write_results(plan.name, journal, plan.setting, plan.out)
    if plan.is_whole and out is not None:
        write_results(plan.name, journal, plan.setting, out)
        refresh_document(plan.name, out)
    return f"{text}\n\n{len(units)} of {len(plan.units)} units were carried out now, in {minutes:.1f} minutes."


def _carry_out(plan: Plan, units: Sequence[Unit], journal: Journal) -> float:
    started = time.monotonic()
    left = sum(map(plan.forecast_seconds, units)) or 1.0
    total, num_done = left, 0

    def take(unit: Unit, figures: dict[str, Any]) -> None:
        nonlocal left, num_done
        journal.add(unit, figures)
        num_done += 1
        left -= plan.forecast_seconds(unit)
        elapsed = time.monotonic() - started
        rest = elapsed * max(left, 0.0) / max(total - left, 1e-9)
        shown = figures.get("error") or f"{figures['wall_seconds']:.1f} s"
        place = f"[{elapsed:5.0f} s] {num_done} of {len(units)}, about {rest / 60:.0f} min to go"
        print(f"{place}: {unit.key}: {shown}", file=sys.stderr, flush=True)

    if units:
        Crew(plan.place, plan.workers).carry_out(units, take)
    return (time.monotonic() - started) / 60


def _list_sets(plan: Plan) -> list[str]:
    return list(dict.fromkeys(unit.set_name for unit in plan.units))


def _format_forecast(plan: Plan) -> str:
    """Return what the run would cost on one core of an AMD EPYC, set by set."""
    seconds: dict[str, float] = defaultdict(float)
    trainings: dict[str, float] = defaultdict(float)
    for unit in plan.units:
        seconds[unit.set_name] += plan.forecast_seconds(unit)
        trainings[unit.set_name] += unit.forecast(plan.count_steps(unit.set_name))
    counts = Counter(unit.set_name for unit in plan.units)
    rows = [
        [
            name,
            f"{plan.forecast_plain(name):.1f}",
            str(counts[name]),
            f"{trainings[name]:.0f}",
            f"{seconds[name] / 60:.1f}",
        ]
        for name in sorted(counts, key=list(SETS).index)
    ]
    total = sum(seconds.values()) / 60
    rows.append(["all", "", str(len(plan.units)), f"{sum(trainings.values()):.0f}", f"{total:.1f}"])
    header = ["set", "seconds of a plain training", "units", "plain trainings", "minutes of one core"]
    table = format_table(header, rows)
    return f"{table}\n\n{total / plan.workers:.0f} minutes with {plan.workers} processes."
