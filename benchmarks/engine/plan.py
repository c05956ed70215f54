"""What a run of the section measures, from the command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.engine.arms import ARMS
from benchmarks.engine.problems import CPU_PROBLEMS, PROBLEMS
from benchmarks.engine.setting import OPTIMIZERS, PRECISIONS, Setting
from benchmarks.engine.timing import CLOCKS

PARTS = ("time", "memory", "cosine")
_NUM_REPEATS = 20
_QUICK_REPEATS, _QUICK_PROBES = 2, 2


@dataclass(frozen=True)
class Plan:
    """Settings, arms and effort.

    Attributes:
        settings: networks with their optimizers, in order.
        arms: those asked for by name; None for the main ones everywhere and the others where the problem has them.
        parts: of time, memory, cosine.
        num_repeats: of the main arms.
        clock: that times are read from.
        is_quick: as little as shows that everything runs.
        is_complete: every arm everywhere.
        out: folder for the results; None for the terminal alone.
    """

    settings: tuple[Setting, ...]
    arms: tuple[str, ...] | None
    parts: tuple[str, ...]
    num_repeats: int
    clock: str
    is_quick: bool
    is_complete: bool
    out: Path | None

    def choose_arms(self, setting: Setting) -> tuple[str, ...]:
        """Return the arms of a setting."""
        if self.arms is not None:
            return self.arms
        main_optimizer = PROBLEMS[setting.problem].main_optimizer
        is_whole = self.is_complete or (not self.is_quick and main_optimizer in (None, setting.optimizer))
        return tuple(name for name, arm in ARMS.items() if is_whole or arm.is_main)

    def count_repeats(self, setting: Setting, arm: str) -> int:
        """Return the repeats of an arm."""
        if ARMS[arm].is_main or self.arms is not None:
            return self.num_repeats
        return min(self.num_repeats, PROBLEMS[setting.problem].num_few_repeats)

    def count_probes(self, setting: Setting) -> int:
        """Return the batches over which cosines are taken."""
        return _QUICK_PROBES if self.is_quick else PROBLEMS[setting.problem].num_probes


def parse_plan(arguments: Sequence[str], out: Path | None) -> Plan:
    """Return the plan that a command line asks for.

    Args:
        arguments: of the command line.
        out: folder for the results of a run that measures everything of its settings; None for the terminal alone.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description="Benchmark of the engine.")
    parser.add_argument("--problems", type=_names(PROBLEMS), help="default: mlp,bert,resnet; on CUDA bert-base too")
    parser.add_argument("--optimizers", type=_names(OPTIMIZERS), help="default: both")
    parser.add_argument("--arms", type=_names(ARMS), help=f"of {', '.join(ARMS)}; plain is always among them")
    parser.add_argument("--parts", type=_names(PARTS), default=PARTS, help="of time, memory, cosine (default: all)")
    parser.add_argument("--repeats", type=int, help=f"paired repeats of the main arms (default {_NUM_REPEATS})")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu with --threads 1 on a busy machine")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precisions", type=_names(PRECISIONS), help="default: float32, on CUDA both")
    parser.add_argument("--quick", action="store_true", help="as little as shows that everything runs; under a minute")
    parser.add_argument("--complete", action="store_true", help="every arm on every network; over an hour on 2 cores")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--out", type=Path, help="folder for the results, for a run that is not whole too")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    is_cuda = chosen.device == "cuda"
    is_partial = bool(chosen.quick or chosen.arms or chosen.repeats) or chosen.parts != PARTS or chosen.clock != "wall"
    problems = ("mlp",) if chosen.quick else tuple(PROBLEMS) if is_cuda else CPU_PROBLEMS
    settings = tuple(
        Setting(problem, optimizer, device=chosen.device, precision=precision)
        for precision in chosen.precisions or (PRECISIONS if is_cuda else PRECISIONS[:1])
        for problem in chosen.problems or problems
        for optimizer in chosen.optimizers or (OPTIMIZERS[1:] if chosen.quick else OPTIMIZERS)
    )
    return Plan(
        settings=settings,
        arms=chosen.arms and tuple(dict.fromkeys(("plain", *chosen.arms))),
        parts=chosen.parts,
        num_repeats=chosen.repeats or (_QUICK_REPEATS if chosen.quick else _NUM_REPEATS),
        clock=chosen.clock,
        is_quick=chosen.quick,
        is_complete=chosen.complete,
        out=chosen.out or (None if is_partial else out),
    )


class _names:  # noqa: N801 - reads as a type in the table of arguments
    """A comma-separated list of known names."""

    def __init__(self, known: Sequence[str] | dict[str, object]) -> None:
        self.known = tuple(known)

    def __call__(self, text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        unknown = [name for name in names if name not in self.known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; wanted names of {', '.join(self.known)}")
        return names
