"""One method on one set: its decisions, what they cost, and how right they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.quality.correction import choose_most_doubtful, measure_correction, relabel
from benchmarks.quality.detection import measure_detection
from benchmarks.quality.gauge import Gauge
from benchmarks.quality.methods import TRUSTING, Variant
from benchmarks.quality.prepared import PreparedSet
from benchmarks.quality.trainer import ArmTrainer, Choice, PlainCost
from sama_core import CurationOptions, Decisions, build_method
from worker.models.registry import NetworkBuilder

_GAUGED_SHARE, _LEAST_STEPS, _MOST_STEPS = 1 / 12, 10, 100


@dataclass(frozen=True)
class Curation:
    """Decisions (N,) on the curated rows, and their cost beside plain training's."""

    decisions: Decisions
    cost: dict[str, float | None]


def curate_set(
    variant: Variant,
    prepared: PreparedSet,
    options: CurationOptions,
    builder: NetworkBuilder,
    trainer: ArmTrainer,
    *,
    device: str,
) -> Curation:
    """Run a method to its end between two short stretches of plain training, against which its cost is measured."""
    gauge = Gauge(device)
    num_steps = min(_MOST_STEPS, max(_LEAST_STEPS, int(trainer.num_steps * _GAUGED_SHARE)))
    before = trainer.gauge_plain(gauge, num_steps)
    train = prepared.make_train()
    meta = prepared.make_meta() if len(prepared.trusted_rows) else None
    network = builder.build(options.seed)
    method = build_method(variant.method, variant.change(options))
    gauge.forget_peak()
    started = gauge.read_clock()
    state = method.init(network, train, meta, device)
    while not method.is_done(state):
        method.step(state)
    decisions = method.finish(state)
    seconds, peak = gauge.read_clock() - started, gauge.read_peak()
    after = trainer.gauge_plain(gauge, num_steps)
    return Curation(decisions, _compare_cost(seconds, peak, before, after, trainer.num_steps))


def _compare_cost(
    seconds: float, peak: float | None, before: PlainCost, after: PlainCost, num_steps: int
) -> dict[str, float | None]:
    plain = num_steps * (before.step_seconds + after.step_seconds) / 2
    memory = None if peak is None or before.peak_mib is None else peak / before.peak_mib
    return {
        "seconds": seconds,
        "plain_seconds": plain,
        "time_ratio": seconds / plain,
        "peak_mib": peak,
        "plain_peak_mib": before.peak_mib,
        "memory_ratio": memory,
    }


def judge(decisions: Decisions, prepared: PreparedSet) -> dict[str, Any]:
    """Return detection and correction over the curated rows that are not trusted, as JSON values."""
    judged = prepared.find_untrusted()
    given, gold = prepared.given[prepared.train_rows], prepared.gold[prepared.train_rows]
    wrong = given != gold
    detection = measure_detection(decisions.noise_score[judged], wrong[judged])
    found: dict[str, Any] = {"detection": detection and detection.to_json()}
    if "learned_weight" in decisions.evidence:
        learned = decisions.evidence["learned_weight"][judged]
        found["learned_weight"] = {"auroc": float(roc_auc_score(wrong[judged], -learned))} if detection else None
    relabelled = relabel(decisions, given)
    if relabelled is not None:
        at_true_number = choose_most_doubtful(decisions, given, judged, int(wrong[judged].sum()))
        for name, labels in (("correction", relabelled.labels), ("correction_at_true_number", at_true_number)):
            correction = measure_correction(labels[judged], given[judged], gold[judged])
            found[name] = correction and correction.to_json()
    return found


def choose_controls(prepared: PreparedSet) -> dict[str, Choice]:
    """Return what the controls train on; trusted rows have their true labels wherever a control knows them."""
    curated, trusted = prepared.train_rows, prepared.trusted_rows
    both = np.union1d(curated, trusted)
    return {
        "given": Choice(prepared.given, curated),
        "meta": Choice(prepared.gold, trusted),
        "given+meta": Choice(_trust(prepared, prepared.given), both),
        "gold": Choice(prepared.gold, both),
    }


def choose_arms(decisions: Decisions, prepared: PreparedSet, seed: int) -> Mapping[str, Choice]:
    """Return what a method's decisions say to train on, beside the trusted rows with their true labels.

    - kept: without as many rows of the highest noise score as labels are wrong, the same number for every method;
    - suggested: labels by the product's rule of correction;
    - weights: given labels with learned weights, where weights were learned;
    - relabelled: corrected labels, with the weights that the product gives them;
    - soft: the probability of each class, where trusted rows calibrated it, every row counting alike.
    """
    judged = prepared.find_untrusted()
    rows, trusted = prepared.train_rows[judged], prepared.trusted_rows
    given = prepared.given[prepared.train_rows]
    both = np.union1d(rows, trusted)
    num_wrong = int((given != prepared.gold[prepared.train_rows])[judged].sum())
    labels = _trust(prepared, prepared.given)
    kept = _drop_most_doubtful(decisions.noise_score[judged], rows, num_wrong, seed)
    arms = {"kept": Choice(labels, np.union1d(kept, trusted))}
    relabelled = relabel(decisions, given)
    if relabelled is not None:
        corrected = prepared.given.copy()
        corrected[prepared.train_rows] = relabelled.labels
        arms["suggested"] = Choice(_trust(prepared, corrected), both)
        if decisions.method in TRUSTING:
            arms["soft"] = Choice(arms["suggested"].labels, both, soft=_soften(decisions, prepared))
    if np.ptp(decisions.weight[judged]) > 0:
        arms["weights"] = Choice(labels, both, _weigh(decisions, prepared, judged))
        if relabelled is not None:
            weights = _weigh(relabelled.decisions, prepared, judged)
            arms["relabelled"] = Choice(arms["suggested"].labels, both, weights)
    return arms


def _trust(prepared: PreparedSet, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    trusted = labels.copy()
    trusted[prepared.trusted_rows] = prepared.gold[prepared.trusted_rows]
    return trusted


def _soften(decisions: Decisions, prepared: PreparedSet) -> NDArray[np.float32]:
    """Return soft labels (P, C): the method's own for curated rows, certain ones for trusted rows."""
    certain = np.eye(prepared.num_classes, dtype=np.float32)
    soft = certain[prepared.gold]
    assert decisions.probabilities is not None, "the method corrects labels"
    judged = prepared.find_untrusted()
    soft[prepared.train_rows[judged]] = decisions.probabilities[judged]
    return soft


def _weigh(decisions: Decisions, prepared: PreparedSet, judged: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return weights (P,): learned ones with mean 1 over the judged rows that count, 1 for trusted rows."""
    weights = np.ones(len(prepared.gold), dtype=np.float32)
    learned = decisions.weight[judged].astype(np.float64)
    weights[prepared.train_rows[judged]] = (learned / learned[learned > 0].mean()).astype(np.float32)
    return weights


def _drop_most_doubtful(
    noise: NDArray[np.float32], rows: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """Return the rows without the ``count`` of highest noise; among equal ones chance decides."""
    chance = np.random.default_rng([0xD0B7, seed]).random(len(rows))
    order = np.lexsort((chance, noise))
    return np.sort(rows[order[: len(rows) - count]])
