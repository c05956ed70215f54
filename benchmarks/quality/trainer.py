"""Trainings of equal length, on labels, rows and weights that somebody chose; each one done once."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.gauge import Gauge
from benchmarks.quality.prepared import PreparedSet
from sama_core import CurationOptions, accuracy, fit, predict
from sama_core.training import PlainTrainer
from worker.models.registry import NetworkBuilder

_ARM_SEED = 1000
"""Arms start from other random numbers than the curation that chose their rows."""


@dataclass(frozen=True)
class Choice:
    """What to train on.

    Attributes:
        labels: (P,) of the pool; only those of ``rows`` count.
        rows: of the pool.
        weights: (P,) loss multipliers, or None for equal ones.
        soft: (P, C) probability of each class, trained on in place of ``labels``; None for these.
    """

    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None
    soft: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class PlainCost:
    """Plain training's seconds per step, and the peak memory of a stretch of it in MiB."""

    step_seconds: float
    peak_mib: float | None


class ArmTrainer:
    """Trains networks on choices from one set and seed, and tests them.

    Args:
        key: names set, seed and size; choices of different keys never meet.
        prepared: the set.
        options: of every training.
        builder: of the network.
        device: where to compute.
        cache: folder of the accuracies known already, which processes share.
    """

    def __init__(
        self,
        key: str,
        prepared: PreparedSet,
        options: CurationOptions,
        builder: NetworkBuilder,
        *,
        device: str,
        cache: Path,
    ) -> None:
        self._key, self._prepared, self._device, self._cache = key, prepared, device, cache
        self.options = replace(options, seed=options.seed + _ARM_SEED)
        self._network = builder.build(self.options.seed)
        num_train = len(prepared.train_rows)
        self.num_steps = -(-num_train // options.batch_size) * options.epochs

    def test(self, choice: Choice) -> float:
        """Return the test accuracy of a network trained on a choice.

        Raises:
            ValueError: the training did not come to its end.
        """
        path = self._cache / f"{self._digest(choice)}.json"
        if path.exists():
            return float(json.loads(path.read_text()))
        network, status = fit(
            self._network,
            self._prepared.make_labelled(choice.labels),
            self.options,
            rows=torch.from_numpy(choice.rows),
            weights=None if choice.weights is None else torch.from_numpy(choice.weights),
            targets=None if choice.soft is None else torch.from_numpy(choice.soft),
            num_steps=self.num_steps,
            device=self._device,
        )
        if status.is_failure:
            raise ValueError(status.message)
        test = self._prepared.test
        found = accuracy(predict(network, test, device=self._device), test.labels)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(found))
        part.replace(path)
        return found

    def gauge_plain(self, gauge: Gauge, num_steps: int) -> PlainCost:
        """Return what some steps of plain training on the given labels cost, after a few to warm up."""
        trainer = PlainTrainer(self.options)
        gauge.forget_peak()
        state = trainer.init(self._network, self._prepared.make_train(), self._device, num_steps=num_steps + 3)
        for _ in range(3):
            trainer.step(state)
        started = gauge.read_clock()
        while not trainer.is_done(state):
            trainer.step(state)
        return PlainCost((gauge.read_clock() - started) / num_steps, gauge.read_peak())

    def _digest(self, choice: Choice) -> str:
        digest = hashlib.sha256(f"{self._key} {self.num_steps} {json.dumps(self.options.to_json())}".encode())
        for values in (choice.rows, choice.labels[choice.rows]):
            digest.update(np.ascontiguousarray(values).tobytes())
        for name, table in (("weights", choice.weights), ("soft", choice.soft)):
            if table is not None:
                digest.update(name.encode() + np.ascontiguousarray(table[choice.rows]).tobytes())
        return digest.hexdigest()
