"""The arms: which rows each one trains on, with which weights, by the same number of steps."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ArmName = Literal["full", "curated", "random"]

_RANDOM_STREAM = 0xA3A5


@dataclass(frozen=True)
class Arm:
    """One training: labelled rows (ascending), and loss multipliers of all labelled rows, or none."""

    name: ArmName
    rows: NDArray[np.int64]
    weights: NDArray[np.float32] | None
    trained_on: str


@dataclass(frozen=True)
class ArmPlan:
    """What the arms of a job are made from.

    Attributes:
        kept: (N,) bool over the labelled rows, true for the rows to train on.
        weight: (N,) learned weights, or None where kept rows count alike (task prune).
    """

    kept: NDArray[np.bool_]
    weight: NDArray[np.float32] | None

    def make(self, name: ArmName, seed: int) -> Arm:
        """Return an arm. Only `random` depends on the seed: its rows, and the order of its weights."""
        num_rows = len(self.kept)
        if name == "full":
            return Arm(name, np.arange(num_rows), None, f"all {num_rows} labelled rows, each counting alike")
        kept = np.flatnonzero(self.kept)
        if name == "curated":
            how = "each counting alike" if self.weight is None else "with their learned weights"
            return Arm(name, kept, self.weight, f"the {len(kept)} kept rows, {how}")
        return self._make_random(kept, seed)

    def _make_random(self, kept: NDArray[np.int64], seed: int) -> Arm:
        generator = np.random.default_rng([_RANDOM_STREAM, seed])
        rows = np.sort(generator.permutation(len(self.kept))[: len(kept)])
        if self.weight is None:
            return Arm("random", rows, None, f"{len(rows)} rows drawn at random, each counting alike")
        weights = np.zeros_like(self.weight)
        weights[rows] = generator.permutation(self.weight[kept])
        words = f"{len(rows)} rows drawn at random, with the learned weights dealt out at random"
        return Arm("random", rows, weights, words)
