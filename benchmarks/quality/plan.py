"""What a run of the section does, from the command line."""

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import name_machine
from benchmarks.quality.methods import ABLATIONS, BASELINES, OURS, PRUNING, TRUSTING, VARIANTS, is_of_votes
from benchmarks.quality.sets import COST_SETS, EXTRA_SETS, FULL_MODEL, FULL_SETS, SEPARATE_SETS, SETS, Size
from benchmarks.quality.unit import Unit, Workplace
from worker.models.defaults import TRAINING_DEFAULTS

_NUM_SEEDS = 3
_OUT = Path("bench-out")
_FORECAST_SHARE = 1.6
"""Two processes beside each other, reading, encoding and testing cost so much more than the trainings alone: the whole
section took 53 minutes."""


@dataclass(frozen=True)
class Plan:
    """Units of work and where they are carried out.

    Attributes:
        name: of the results: quality, quality-full or quality-ablation.
        units: in the order of their forecast cost, the dearest first.
        place: for all of them.
        workers: processes at a time.
        out: folder of the units' results.
        resume: whether results that are there already are kept.
        is_whole: whether nothing of the section was left out.
        forecast_only: print what it would cost, and end.
    """

    name: str
    units: tuple[Unit, ...]
    place: Workplace
    workers: int
    out: Path
    resume: bool
    is_whole: bool
    forecast_only: bool

    @property
    def setting(self) -> dict[str, Any]:
        """What the units' results depend on beside the units themselves."""
        sizes = {name: asdict(size) for name, size in self.place.sizes.items()}
        return {"sizes": sizes, "model": self.place.model, "device": self.place.device}

    def forecast_seconds(self, unit: Unit) -> float:
        """Return the processor time that a unit may take on a CPU."""
        num_steps = self._count_own_steps(unit.set_name) if unit.kind == "cost" else self.count_steps(unit.set_name)
        return unit.forecast(num_steps) * num_steps * SETS[unit.set_name].step_ms / 1000 * _FORECAST_SHARE

    def forecast_plain(self, set_name: str) -> float:
        """Return the processor time of one plain training on a CPU."""
        return self.count_steps(set_name) * SETS[set_name].step_ms / 1000

    def _count_own_steps(self, set_name: str) -> int:
        """Return the steps that the product would take, more or less."""
        return TRAINING_DEFAULTS[self.place.model or SETS[set_name].model].num_steps

    def count_steps(self, set_name: str) -> int:
        """Return the steps of one plain training, more or less."""
        spec, size = SETS[set_name], self.place.sizes[set_name]
        if size.epochs is None:
            return self._count_own_steps(set_name)
        defaults = TRAINING_DEFAULTS[self.place.model or spec.model]
        num_train = size.num_train or spec.num_labelled
        return -(-num_train // defaults.batch_size) * size.epochs


def parse_plan(arguments: Sequence[str]) -> Plan:
    """Return the plan that a command line asks for; a wrong one ends the process."""
    parser = _build_parser()
    chosen = parser.parse_args(arguments)
    if chosen.data is None and not chosen.plan:
        parser.error("--data: not given, nor SAMA_REAL_DATA set; wanted the folder of the data sets")
    name = "quality-full" if chosen.full else "quality-ablation" if chosen.ablate else "quality"
    sets = chosen.sets or _choose_sets(chosen)
    sizes = {set_name: _choose_size(set_name, chosen) for set_name in SETS}
    is_cuda = chosen.device == "cuda"
    out: Path = chosen.out or _OUT / f"{name}-{name_machine()}"
    place = Workplace(
        data=(chosen.data or Path()).resolve(),
        cache=out.resolve() / "cache",
        device=chosen.device,
        model=FULL_MODEL if chosen.full else "",
        threads=chosen.threads or (os.cpu_count() or 1 if is_cuda else 1),
        sizes=sizes,
    )
    is_whole = not (chosen.sets or chosen.methods or chosen.rows or chosen.epochs) and chosen.seeds >= _NUM_SEEDS
    plan = Plan(
        name=name,
        units=(),
        place=place,
        workers=chosen.workers or (1 if is_cuda else min(2, os.cpu_count() or 1)),
        out=out,
        resume=chosen.resume,
        is_whole=is_whole,
        forecast_only=chosen.plan,
    )
    units = _list_units(sets, chosen.methods, range(chosen.seeds), is_ablation=chosen.ablate, complete=chosen.complete)
    if not (chosen.ablate or chosen.epochs) and OURS in (chosen.methods or (OURS,)):
        cut = [name for name in COST_SETS if name in sets and sizes[name].epochs is not None]
        units += [Unit("cost", name, "audited", OURS, seed, False) for name in cut for seed in range(chosen.seeds)]
    return replace(plan, units=tuple(sorted(units, key=plan.forecast_seconds, reverse=True)))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks quality", description="Benchmark of the decisions.")
    environment = os.environ.get("SAMA_REAL_DATA")
    parser.add_argument("--data", type=Path, default=environment and Path(environment), help="or SAMA_REAL_DATA")
    parser.add_argument("--sets", type=_names(SETS), help=f"of {', '.join(SETS)} (default: all)")
    parser.add_argument("--methods", type=_names(VARIANTS), help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", type=int, default=_NUM_SEEDS, help=f"(default {_NUM_SEEDS})")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--full", action="store_true", help="ResNet-18 on all of CIFAR-10; hours on a GPU")
    parser.add_argument("--ablate", action="store_true", help="ours alone, one piece of evidence left out at a time")
    parser.add_argument("--complete", action="store_true", help="all sets, and trainings on every one of them")
    parser.add_argument("--rows", type=int, help="at most so many curated and so many test rows, for a trial")
    parser.add_argument("--epochs", type=int, help="of every training, for a trial")
    parser.add_argument("--workers", type=int, help="processes at a time (default: 2, on CUDA 1)")
    parser.add_argument("--threads", type=int, help="of torch in each (default: 1, on CUDA all)")
    parser.add_argument("--out", type=Path, help=f"folder for the results of each unit (default: below {_OUT})")
    parser.add_argument("--resume", action="store_true", help="keep the results of --out, do what is missing")
    parser.add_argument("--plan", action="store_true", help="print what it would cost, and end")
    return parser


def _choose_sets(chosen: argparse.Namespace) -> tuple[str, ...]:
    if chosen.full:
        return FULL_SETS
    if chosen.ablate:
        return tuple(name for name, spec in SETS.items() if spec.is_main)
    return tuple(name for name in SETS if chosen.complete or name not in EXTRA_SETS)


def _choose_size(set_name: str, chosen: argparse.Namespace) -> Size:
    size = Size() if chosen.full else SETS[set_name].size
    if chosen.rows:
        cut = [chosen.rows if count is None else min(count, chosen.rows) for count in (size.num_train, size.num_test)]
        size = replace(size, num_train=cut[0], num_test=cut[1])
    return replace(size, epochs=chosen.epochs) if chosen.epochs else size


def _list_units(
    sets: Sequence[str], methods: Sequence[str] | None, seeds: Collection[int], *, is_ablation: bool, complete: bool
) -> list[Unit]:
    wanted = methods or ((OURS, *ABLATIONS) if is_ablation else (OURS, *BASELINES))
    units: list[Unit] = []
    for set_name in sets:
        spec = SETS[set_name]
        for seed in seeds:
            if spec.is_pruned:
                if not is_ablation:
                    units.append(Unit("whole", set_name, "audited", "", seed, True))
                    units += [
                        Unit("pruning", set_name, "audited", name, seed, True) for name in _among(PRUNING, wanted)
                    ]
                continue
            has_arms = not is_ablation and (spec.is_main or complete)
            if has_arms:
                units.append(Unit("controls", set_name, "audited", "", seed, True))
            plain = {
                name: has_arms and name in (OURS, *BASELINES)
                for name in wanted
                if spec.has_votes or not is_of_votes(name)
            }
            units += [Unit("curation", set_name, "audited", name, seed, arms) for name, arms in plain.items()]
            if set_name in SEPARATE_SETS and not is_ablation:
                units += [
                    Unit("curation", set_name, "separate", name, seed, False) for name in _among(TRUSTING, wanted)
                ]
    return units


def _among(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    return [name for name in names if name in wanted]


def _names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Return the reader of a comma-separated list of known names."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; wanted names of {', '.join(known)}")
        return names

    return read
