"""What it costs to trace the influences of a job, beside its training: a table for the reference of the bundle.

Run it as `python -m benchmarks.tracing DATA`, DATA being the folder of the quality section's data sets; half a minute
on one core. It writes tracing.md beside the other results.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe_machine
from benchmarks.quality.methods import OURS
from benchmarks.quality.reading import prepare_set
from benchmarks.quality.sets import SETS
from benchmarks.quality.unit import Unit, Workplace, choose_options
from benchmarks.tables import format_table
from sama_core import build_method
from sama_core.influences import trace_influences
from sama_core.randomness import permute
from worker.models.registry import count_parameters, create_builder
from worker.phases.tracing import NUM_TOLD, limit_tracing
from worker.phases.training import count_examples, find_curation

RESULTS = Path(__file__).parent / "results" / "tracing.md"
TRACED_SETS = ("letter", "wrench_youtube", "cifar10_worse")
_MAX_BYTES = 1 << 32
_LEAST_ROWS = 50


def measure(data: Path, name: str) -> list[list[str]]:
    """Return the lines of one set: what a job would trace, and as many rows as the length of the training allows."""
    with tempfile.TemporaryDirectory(prefix="sama-tracing-") as scratch:
        spec = SETS[name]
        prepared = prepare_set(spec, spec.size, spec.model, 0, data=data, scratch=Path(scratch) / "arrays")
        place = Workplace(data, Path(scratch), device="cpu", model="", threads=1, sizes={name: spec.size})
        options = choose_options(Unit("curation", name, "audited", OURS, 0, True), place, prepared)
        builder = create_builder(spec.model, prepared.shape, prepared.num_classes)
        train, meta, device = prepared.make_train(), prepared.make_meta(), torch.device("cpu")
        method = build_method(OURS, options, build_network=builder.build)
        begun = time.process_time()
        state = method.init(builder.build(options.seed), train, meta, device)
        while not method.is_done(state):
            method.step(state)
        training = time.process_time() - begun
        curation = find_curation(state)
        assert curation is not None and curation.bilevel is not None, "the method learns from trusted examples"
        base, suspicion = curation.bilevel.base, method.finish(state).noise_score
        num_params, num_examples = count_parameters(base.network), count_examples(options, len(train))
        num_rows, num_trusted = limit_tracing(num_params, num_examples, len(meta))
        trusted = permute(len(meta), options.seed, "influences")[:num_trusted].sort().values
        lines = []
        for count in dict.fromkeys((num_rows, max(_LEAST_ROWS, min(1000, num_examples // 400)))):
            rows = torch.from_numpy(np.argsort(-suspicion, kind="stable")[:count].copy())
            begun = time.process_time()
            trace_influences(
                base.network,
                train,
                meta,
                rows,
                trusted=trusted,
                optimizer=base.descent.optimizer,
                top_k=NUM_TOLD,
                device=device,
                max_bytes=_MAX_BYTES,
            )
            seconds = time.process_time() - begun
            what = "as a job traces" if count == num_rows else "by the length of the training alone"
            figures = [f"{num_params:,}", f"{count:,}", f"{num_trusted:,}", f"{seconds:.1f} s", f"{training:.1f} s"]
            lines.append([name, what, *figures, f"{seconds / training:.0%}"])
        return lines


def main() -> None:
    """Measure, print and write."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.tracing DATA")
    torch.set_num_threads(1)
    data = Path(sys.argv[1]).resolve()
    header = ["set", "rows", "parameters", "rows traced", "trusted", "tracing", "training", "share"]
    lines = [line for name in TRACED_SETS for line in measure(data, name)]
    text = (
        f"# Tracing influences\n\nMeasured on: {describe_machine()}; processor time, once each.\n\n"
        f"{format_table(header, lines)}\n"
    )
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
