"""The section's tables, and its results on disk."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.engine.arms import ARMS
from benchmarks.engine.record import Record
from benchmarks.engine.setting import PERIOD
from benchmarks.machine import name_machine
from benchmarks.tables import format_spread, format_table

_METRICS = (
    ("time, a meta step after each base step, x plain", "<= {:.2f}"),
    ("time, a meta step after each tenth, x plain", "<= {:.2f}"),
    ("peak memory of the process, x plain", "<= {:.2f}"),
    ("cosine to the exact hypergradient", ">= {:.4f}"),
)
_TARGETS = {
    "mlp": (2.4, 1.18, 1.10, 0.9999),
    "bert": (2.2, 1.10, 1.15, 0.9999),
    "resnet": (2.3, 1.10, 1.20, 0.999),
}
_METHOD = """\
Every arm trains the same network on the same kind of random batches with the same optimizer; base and meta batches are
of one size. Plain training is a loop written by hand. Ours is the product's own loop, the weight network on the loss
alone unless the row says "default evidence". Betty runs its own loop with the weight network of its examples.

Time: the arms take turns in an order shuffled in each repeat, and each ratio to plain training is taken within its
repeat; median [quartiles] (repeats). Peak memory: a process of its own for each arm, its peak resident set (on CUDA the
peak of its tensors); "added" is what comes on top of imports and data. Cosine: to automatic differentiation through the
real optimizer step that was just done, with its dropout mask, in float32; median [quartiles] over batches, after some
steps of training. For Betty the reference takes Betty's own problem state, loss and masks (of its meta pass too), and
its four kinds are computed from one state, with its default perturbations; Neumann and CG with one term, the least that
they can do, Neumann's step the learning rate."""


def format_report(records: Sequence[Record]) -> str:
    """Return every table."""
    parts = [_METHOD]
    targets = _format_targets(records)
    parts += [f"### The automatic route beside its targets (SGD / AdamW)\n\n{targets}"] if targets else []
    parts += [_format_record(record) for record in records]
    return "\n\n".join(parts)


def _format_targets(records: Sequence[Record]) -> str:
    columns = {
        problem: [record for record in records if record.setting.problem == problem and _is_on_target(record)]
        for problem in _TARGETS
    }
    columns = {problem: found for problem, found in columns.items() if found}
    if not columns:
        return ""
    rows = []
    for index, (name, form) in enumerate(_METRICS):
        cells = []
        for problem, found in columns.items():
            values = [_find_figures(record)[index] for record in found]
            digits = 5 if form.startswith(">=") else 2
            shown = " / ".join("-" if value is None else f"{value:.{digits}f}" for value in values)
            cells.append(f"{shown} ({form.format(_TARGETS[problem][index])})")
        rows.append([name, *cells])
    return format_table(["", *columns], rows)


def _is_on_target(record: Record) -> bool:
    return record.setting.device == "cpu" and record.setting.precision == "float32"


def _find_figures(record: Record) -> tuple[float | None, ...]:
    """Return the automatic route's figures in the order of the targets."""
    times = [record.ratios.get(unroll, {}).get("auto") for unroll in (1, PERIOD)]
    memory = None
    if {"auto", "plain"} <= record.memory.keys():
        memory = record.memory["auto"]["whole"] / record.memory["plain"]["whole"]
    cosines = record.cosines.get("auto")
    found = [statistics.median(values) if values else None for values in (*times, cosines)]
    return found[0], found[1], memory, found[2]


def _format_record(record: Record) -> str:
    setting = record.setting
    title = f"### {record.title}; {setting.optimizer}, {setting.precision}, {setting.device}"
    rows = [_format_arm(record, arm) for arm in ARMS if _has_figures(record, arm)]
    header = [
        "arm",
        "time, meta step after each step",
        f"after each {PERIOD}th",
        "peak memory, x plain",
        "added, x plain",
        "cosine",
    ]
    lines = [title, record.origin]
    if record.plain_ms:
        lines.append(f"A plain step takes {format_spread(record.plain_ms, 1)} ms.")
    lines.append(format_table(header, rows))
    if record.unrolled_cosines:
        lines.append(_format_unrolled(record))
    lines += record.notes
    return "\n\n".join(lines)


def _has_figures(record: Record, arm: str) -> bool:
    return arm in record.memory or arm in record.cosines or any(arm in arms for arms in record.ratios.values())


def _format_arm(record: Record, arm: str) -> list[str]:
    cells = [ARMS[arm].title]
    for unroll in (1, PERIOD):
        values = record.ratios.get(unroll, {}).get(arm)
        cells.append(f"{format_spread(values)} ({len(values)})" if values else "")
    peak, plain = record.memory.get(arm), record.memory.get("plain")
    for kind in ("whole", "added"):
        shown = f"{peak[kind] / plain[kind]:.2f} ({peak[kind]:.0f} MiB)" if peak and plain else ""
        cells.append(shown)
    cosines = record.cosines.get(arm)
    cells.append(f"{format_spread(cosines, 5)} ({len(cosines)})" if cosines else "")
    return cells


def _format_unrolled(record: Record) -> str:
    shown = {arm: f"{format_spread(found, 3)} ({len(found)})" for arm, found in record.unrolled_cosines.items()}
    return (
        f"Cosine to automatic differentiation through all {PERIOD} base steps since the last meta step: "
        f"the last step's batch alone {shown['auto']}; every unrolled batch {shown['every-step']}."
    )


def read_records(folder: Path) -> dict[str, Record]:
    """Return what this machine's results file holds, by setting."""
    path = _find_file(folder, "json")
    if not path.exists():
        return {}
    return {key: Record.from_json(values) for key, values in json.loads(path.read_text()).items()}


def write_records(folder: Path, records: Mapping[str, Record]) -> None:
    """Write the results and the report of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: record.to_json() for key, record in records.items()}
    _find_file(folder, "json").write_text(json.dumps(values, indent=1) + "\n")
    _find_file(folder, "md").write_text(f"## engine\n\n{format_report(list(records.values()))}\n")


def _find_file(folder: Path, suffix: str) -> Path:
    return folder / f"engine-{name_machine()}.{suffix}"
