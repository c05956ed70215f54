"""`python -m benchmarks.selection_rules letter.parquet`: test accuracy after keeping rows by each selection rule.

A small network is trained on all rows; its averaged probability of the given label is the score, its features are the
representation. Then fresh networks are trained, by equal steps, on what each rule keeps. Labels: as they are (gold),
and with a fifth of them replaced at random.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.machine import describe_machine
from benchmarks.tables import format_table
from sama_core import CurationOptions, TensorExamples, accuracy, fit, order_rows, predict

NUM_TRAIN, NUM_TEST, NUM_STEPS = 6000, 6000, 800
FRACTIONS, WRONG_SHARES = (0.1, 0.3, 0.5, 0.7), (0.0, 0.2)
OPTIONS = CurationOptions(epochs=20, batch_size=100, lr=3e-3)
RULES = ("random", "top, easy first", "top, hard first", "balanced", "coverage, no cut", "coverage, cut 0.9",
         "coverage, cut 0.5")  # fmt: skip


@dataclass(frozen=True)
class Letters:
    """The rows to choose from, and those to test on."""

    train: TensorExamples
    test: TensorExamples


@dataclass(frozen=True)
class Seen:
    """What a training on all rows has shown of them."""

    easiness: NDArray[np.float32]
    doubt: NDArray[np.float32]
    representation: NDArray[np.float32]


def read_letters(path: Path, wrong_share: float, seed: int) -> Letters:
    """Read the rows, and replace a share of the training labels by random ones."""
    table = pq.read_table(path).to_pandas()
    columns = [name for name in table.columns if name not in {"id", "label", "noisy_label", "noisy_sym40", "split"}]
    numbers = table[columns].to_numpy(np.float32)
    inputs = torch.from_numpy((numbers - numbers.mean(0)) / numbers.std(0))
    labels = torch.from_numpy(table["label"].to_numpy(np.int64))
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    train, test = rows[:NUM_TRAIN], rows[NUM_TRAIN : NUM_TRAIN + NUM_TEST]
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(NUM_TRAIN, generator=generator) < wrong_share
    random = torch.randint(0, 26, (NUM_TRAIN,), generator=generator)
    given = torch.where(wrong, random, labels[train])
    return Letters(TensorExamples(inputs[train], given, 26), TensorExamples(inputs[test], labels[test], 26))


def build_network(seed: int) -> nn.Sequential:
    """Return a fresh network; all but its last layer make the representation."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 26))


def look(letters: Letters, seed: int) -> Seen:
    """Train on all rows and note what that shows, averaged over points of the training."""
    train, network = letters.train, build_network(seed)
    chances, num_looks = torch.zeros(NUM_TRAIN, 26), 10
    for number in range(num_looks):
        options = CurationOptions(**{**vars(OPTIONS), "epochs": 2, "seed": seed + number, "schedule": "constant"})
        trained, _ = fit(network, train, options)
        assert isinstance(trained, nn.Sequential)
        network = trained
        chances += predict(network, train).softmax(1) / num_looks
    easiness = chances.gather(1, train.labels[:, None]).squeeze(1)
    doubt = torch.where(chances.argmax(1) == train.labels, 0.0, 1.0 - easiness)
    features = predict(network[:-1], train)
    return Seen(easiness.numpy(), doubt.numpy(), features.numpy())


def choose(seen: Seen, labels: NDArray[np.int64], seed: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each rule's name and its order of the rows."""
    yield "random", np.random.default_rng(seed).permutation(len(labels))
    yield "top, easy first", order_rows(seen.easiness, labels, "top")
    yield "top, hard first", order_rows(-seen.easiness, labels, "top")
    yield "balanced", order_rows(seen.easiness, labels, "balanced")
    for name, cut in (("no cut", 1.0), ("cut 0.9", 0.9), ("cut 0.5", 0.5)):
        rank = order_rows(
            seen.easiness, labels, "coverage",
            noise_score=seen.doubt, noise_cut=cut, representation=seen.representation,
        )  # fmt: skip
        yield f"coverage, {name}", rank


def measure(letters: Letters, rank: NDArray[np.int64], fraction: float, seed: int) -> float:
    """Return the test accuracy, in percent, of a fresh network trained on what is kept."""
    rows = torch.from_numpy(np.flatnonzero(rank < round(fraction * NUM_TRAIN)))
    options = CurationOptions(**{**vars(OPTIONS), "seed": seed})
    network, _ = fit(build_network(seed), letters.train, options, rows=rows, num_steps=NUM_STEPS)
    return 100.0 * accuracy(predict(network, letters.test), letters.test.labels)


def main() -> None:
    """Measure every rule and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="letter as parquet: 16 columns of numbers and `label`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "selection-rules.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[float, float, str], list[float]] = defaultdict(list)
    for wrong_share in WRONG_SHARES:
        for seed in range(given.seeds):
            letters = read_letters(given.data, wrong_share, seed)
            seen = look(letters, 100 + seed)
            for rule, rank in choose(seen, letters.train.labels.numpy(), seed):
                for fraction in FRACTIONS:
                    found[wrong_share, fraction, rule].append(measure(letters, rank, fraction, 200 + seed))
    rows = [
        [f"{wrong_share:.0%}", f"{fraction:.0%}", *(_write(found[wrong_share, fraction, rule]) for rule in RULES)]
        for wrong_share in WRONG_SHARES
        for fraction in FRACTIONS
    ]
    text = f"{format_table(['wrong labels', 'kept', *RULES], rows)}\n\n{given.seeds} seeds; {describe_machine()}\n"
    given.out.write_text(text)
    print(text)


def _write(accuracies: list[float]) -> str:
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return f"{statistics.fmean(accuracies):.1f} ± {spread:.1f}"


if __name__ == "__main__":
    main()
