"""Section "engine": what a base step costs with the meta level on, as a multiple of plain training.

Arms run in turn within each repeat, in a shuffled order, and every ratio is taken within its repeat, so that a
machine whose speed drifts does not favour an arm. Peak memory is that of a process of its own per arm.
"""

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.tables import format_spread, format_table
from sama_core import CurationOptions, PlainTrainer, TensorExamples, build_method

BATCH_SIZE = 128
NUM_ROWS = 8192
NUM_STEPS = 30
NUM_REPEATS = 20
WARM_STEPS = 12
ROUTES = ("forward-mode", "finite-difference")
ARMS = ("plain", *(f"sama {route} u{unroll}" for unroll in (1, 10) for route in ROUTES))


def build_network() -> nn.Module:
    """Return the network of the table: a perceptron 784-512-512-10."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def build_examples(num_rows: int, seed: int) -> TensorExamples:
    """Return random inputs and labels: the cost of a step does not depend on what they say."""
    generator = torch.Generator().manual_seed(seed)
    inputs: Tensor = torch.randn(num_rows, 784, generator=generator)
    return TensorExamples(inputs, torch.randint(10, (num_rows,), generator=generator))


def build_stepper(arm: str, optimizer: str) -> Callable[[], None]:
    """Return a function that does one base step of an arm, warmed up."""
    options = CurationOptions(
        epochs=10_000, batch_size=BATCH_SIZE, optimizer=optimizer, lr=1e-3, schedule="constant", check_every=1_000_000
    )  # type: ignore[arg-type]
    train, meta = build_examples(NUM_ROWS, 1), build_examples(1024, 2)
    if arm == "plain":
        trainer = PlainTrainer(options)
        training = trainer.init(build_network(), train)
        step: Callable[[], object] = lambda: trainer.step(training)  # noqa: E731
    else:
        _, route, unroll = arm.split()
        method = build_method("sama", replace(options, route=route, unroll_steps=int(unroll[1:])))  # type: ignore[arg-type]
        state = method.init(build_network(), train, meta)
        step = lambda: method.step(state)  # noqa: E731
    for _ in range(WARM_STEPS):
        step()
    return lambda: (step(), None)[1]


def measure_seconds(step: Callable[[], None]) -> float:
    """Return the seconds that one step takes, over NUM_STEPS."""
    start = time.perf_counter()
    for _ in range(NUM_STEPS):
        step()
    return (time.perf_counter() - start) / NUM_STEPS


def measure_memory(arm: str, optimizer: str) -> float:
    """Return the peak memory in MiB that an arm adds to a process which has torch and the data loaded."""
    command = [sys.executable, "-m", "benchmarks.engine", arm, optimizer]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run() -> str:
    """Measure every arm and return the tables."""
    parts = []
    for optimizer in ("sgd", "adamw"):
        steppers = {arm: build_stepper(arm, optimizer) for arm in ARMS}
        ratios: dict[str, list[float]] = {arm: [] for arm in ARMS}
        order = random.Random(0)
        for _ in range(NUM_REPEATS):
            seconds = {arm: measure_seconds(steppers[arm]) for arm in order.sample(ARMS, len(ARMS))}
            for arm in ARMS:
                ratios[arm].append(seconds[arm] / seconds["plain"])
        memory = {arm: measure_memory(arm, optimizer) for arm in ARMS}
        rows = [
            [arm, format_spread(ratios[arm]), f"{memory[arm] / memory['plain']:.2f}", f"{memory[arm]:.0f}"]
            for arm in ARMS
        ]
        header = ["arm", "time per base step, x plain", "peak memory, x plain", "MiB"]
        title = (
            f"MLP 784-512-512-10, batch {BATCH_SIZE}, {optimizer}; n = {NUM_REPEATS} paired repeats of {NUM_STEPS} "
            "steps; median [quartiles]"
        )
        parts.append(f"{title}\n\n{format_table(header, rows)}")
    return "\n\n".join(parts)


def _print_memory(arm: str, optimizer: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = build_stepper(arm, optimizer)
    for _ in range(NUM_STEPS):
        step()
    sys.stdout.write(str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


if __name__ == "__main__":
    _print_memory(sys.argv[1], sys.argv[2])
