"""What `method.seeds` adds, and whether soft labels want weights beside them: two tables for the page of results.

Run it as `python -m benchmarks.several_seeds DATA`, DATA being the folder of the quality section's data sets; some
seven minutes on two cores. It writes several-seeds.md beside the other results.
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe_machine
from benchmarks.quality.curation import choose_arms, judge
from benchmarks.quality.methods import OURS
from benchmarks.quality.prepared import PreparedSet
from benchmarks.quality.reading import prepare_set
from benchmarks.quality.sets import SETS
from benchmarks.quality.trainer import ArmTrainer
from benchmarks.quality.unit import Unit, Workplace, choose_options
from benchmarks.tables import format_table
from sama_core import CurationOptions, Decisions, build_method
from worker.models.registry import NetworkBuilder, create_builder

RESULTS = Path(__file__).parent / "results" / "several-seeds.md"
NUM_SEEDS, NUM_DRAWS, PROCESSES = 3, 3, 2
SEED_SETS = ("cifar10_worse", "adult", "sst2", "wrench_youtube")
SOFT_SETS = tuple(name for name, spec in SETS.items() if spec.is_main)
_LEAST_WEIGHT = 0.05

Figures = dict[str, float]


def curate(options: CurationOptions, prepared: PreparedSet, builder: NetworkBuilder) -> Decisions:
    """Return what the method decides, each of its seeds with a network of its own."""
    method = build_method(OURS, options, build_network=builder.build)
    state = method.init(builder.build(options.seed), prepared.make_train(), prepared.make_meta())
    while not method.is_done(state):
        method.step(state)
    return method.finish(state)


def compare(job: tuple[Path, str, int]) -> Figures:
    """Return the figures of one set and one draw of its rows."""
    data, name, draw = job
    torch.set_num_threads(1)
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="sama-several-seeds-") as scratch:
        spec = SETS[name]
        prepared = prepare_set(spec, spec.size, spec.model, draw, data=data, scratch=Path(scratch) / "arrays")
        place = Workplace(data, Path(scratch), device="cpu", model="", threads=1, sizes={name: spec.size})
        options = choose_options(Unit("curation", name, "audited", OURS, draw, True), place, prepared)
        builder = create_builder(spec.model, prepared.shape, prepared.num_classes)
        first = curate(options, prepared, builder)
        if name in SEED_SETS:
            others = [
                curate(replace(options, seed=options.seed + number), prepared, builder)
                for number in range(1, NUM_SEEDS)
            ]
            single = [_describe(one, prepared) for one in (first, *others)]
            figures |= {f"one {key}": statistics.fmean(one[key] for one in single) for key in single[0]}
            several = _describe(curate(replace(options, seeds=NUM_SEEDS), prepared, builder), prepared)
            figures |= {f"several {key}": value for key, value in several.items()}
        if name in SOFT_SETS:
            trainer = ArmTrainer(name, prepared, options, builder, device="cpu", cache=Path(scratch) / "arms")
            alike = choose_arms(first, prepared, draw)["soft"]
            figures["alike"] = trainer.test(alike)
            figures["weighted"] = trainer.test(replace(alike, weights=_weigh(first, prepared)))
    return figures


def _describe(decisions: Decisions, prepared: PreparedSet) -> Figures:
    found = judge(decisions, prepared)["detection"]
    return {
        "auroc": found["auroc"],
        "average_precision": found["average_precision"],
        "spread": float(decisions.weight_std.mean()),
    }


def _weigh(decisions: Decisions, prepared: PreparedSet) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the weights (P,), none below 0.05 so that no row is left out; those of trusted rows 1."""
    judged = prepared.find_untrusted()
    own = np.maximum(decisions.weight[judged], _LEAST_WEIGHT)
    weights = np.ones(len(prepared.gold), dtype=np.float32)
    weights[prepared.train_rows[judged]] = own / own.mean()
    return weights


def write_tables(found: Mapping[str, Sequence[Figures]]) -> str:
    """Return both tables, each figure the mean over the draws."""

    def mean(name: str, key: str) -> str:
        return f"{statistics.fmean(figures[key] for figures in found[name]):.3f}"

    keys = [f"{count} {key}" for key in ("auroc", "average_precision", "spread") for count in ("one", "several")]
    header = ["set"]
    for title in ("AUROC", "average precision", "mean `weight_std`"):
        header += [f"{title}, one seed", f"{NUM_SEEDS} seeds"]
    seeds = format_table(header, [[name, *(mean(name, key) for key in keys)] for name in SEED_SETS])
    soft = format_table(
        ["set", "every row alike", "with the weights"],
        [[name, mean(name, "alike"), mean(name, "weighted")] for name in SOFT_SETS],
    )
    return (
        f"# Several seeds, and soft labels with weights\n\nMeasured on: {describe_machine()}; "
        f"{PROCESSES} processes of 1 thread.\n"
        f"Means over {NUM_DRAWS} draws of the rows; one seed: the mean of the {NUM_SEEDS} seeds taken alone.\n\n"
        f"## `method.seeds: {NUM_SEEDS}`\n\n{seeds}\n\n## Test accuracy after training on soft labels\n\n{soft}\n"
    )


def main() -> None:
    """Measure, print and write."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.several_seeds DATA")
    data = Path(sys.argv[1]).resolve()
    names = tuple(dict.fromkeys((*SEED_SETS, *SOFT_SETS)))
    jobs = [(data, name, draw) for name in names for draw in range(NUM_DRAWS)]
    found: dict[str, list[Figures]] = {name: [] for name in names}
    with ProcessPoolExecutor(PROCESSES) as pool:
        for (_data, name, draw), figures in zip(jobs, pool.map(compare, jobs), strict=True):
            found[name].append(figures)
            print(f"{name}, draw {draw}: {figures}", file=sys.stderr, flush=True)
    text = write_tables(found)
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
