"""What the trainings of an evaluation add up to."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.jobs.document_specs import Arm as ArmName
from service.results.reasons import DOUBTFUL_NOISE_SCORE
from service.results.schemas import (
    ArmSummary,
    AuditSummary,
    BaselineSummary,
    CurvePoint,
    DetectionSummary,
    EvaluationSummary,
)
from worker.evaluation.arms import Arm
from worker.evaluation.baseline import compare_doubts, read_scores
from worker.evaluation.bootstrap import bootstrap_mean, describe_bootstrap
from worker.evaluation.detection import summarise_detection
from worker.evaluation.plant import Planting
from worker.evaluation.statistics import describe_method, estimate_mean
from worker.evaluation.verdict import compare, compare_arms, warn_of_few, write_verdict
from worker.evaluation.workload import AUDIT_BASELINE_KEY, AUDIT_KEY, CURVE_ARMS, Results, Workload
from worker.phases.reading import JobData
from worker.phases.scoring import Outcome

_READING = (
    "Labels that were wrong already count as right here, and doubting one of them counts as a mistake: every figure is "
    "a lower bound, and in each bin the share planted falls short of the noise score by the real errors in it. Trusted "
    "rows are neither planted in nor judged."
)


def summarise(data: JobData, outcome: Outcome, workload: Workload, results: Results) -> EvaluationSummary:
    """Return accuracies with intervals, paired differences, the prune curve, baselines, the audit and the verdict."""
    summariser = _Summariser(data, outcome, workload, results)
    arms = workload.wanted.arms
    correct = {arm: summariser.stack(workload.find_key(arm, seed) for seed in workload.seeds) for arm in arms}
    comparisons = compare_arms(correct, data.options.seed, workload.twins)
    curve, audit = summariser.draw_curve(), summariser.audit()
    is_tested = bool(arms or curve)
    return EvaluationSummary(
        num_test=len(data.test) if is_tested and data.test is not None else 0,
        seeds=workload.seeds if is_tested else [],
        arms=[summariser.summarise_arm(summariser.make_arm(arm), correct[arm]) for arm in arms],
        comparisons=comparisons,
        interval_method=describe_method(len(workload.seeds)),
        bootstrap_method=describe_bootstrap(),
        verdict=write_verdict(comparisons, audit, num_seeds=len(workload.seeds), twins=workload.twins),
        curve=curve,
        baselines=summariser.compare_baselines(),
        audit=audit,
    )


class _Summariser:
    """Reads the results of the trainings."""

    def __init__(self, data: JobData, outcome: Outcome, workload: Workload, results: Results) -> None:
        self._data, self._outcome, self._workload, self._results = data, outcome, workload, results
        self._seed = data.options.seed

    def stack(self, keys: Iterable[str]) -> NDArray[np.uint8]:
        """Return which test examples were right (seeds, test examples)."""
        return np.stack([self._results[key]["correct"].numpy() for key in keys])

    def make_arm(self, arm: ArmName, num_kept: int | None = None) -> Arm:
        """Return an arm as its first seed trained on it."""
        made = self._workload.make_arm(arm, self._workload.seeds[0], self._results, num_kept)
        twin = self._workload.twins.get(arm) if num_kept is None else None
        return made if twin is None else replace(made, trained_on=f"the same as {twin}, trained once")

    def summarise_arm(self, arm: Arm, right_ST: NDArray[np.uint8]) -> ArmSummary:
        """Return the accuracy of an arm."""
        estimate = estimate_mean(right_ST, (0.0, 1.0))
        return ArmSummary(
            arm=arm.name,
            trained_on=arm.trained_on,
            num_rows=len(arm.rows),
            num_steps=self._workload.num_steps,
            accuracy=[float(accuracy) for accuracy in right_ST.mean(axis=1)],
            mean=estimate.mean,
            interval=estimate.interval,
            bootstrap=bootstrap_mean(right_ST, self._seed),
        )

    def draw_curve(self) -> list[CurvePoint]:
        """Return the prune curve, the smallest keep fraction first."""
        return [self._draw_point(share, count) for share, count in sorted(self._workload.fractions.items())]

    def _draw_point(self, keep_fraction: float, num_kept: int) -> CurvePoint:
        seeds, find_key = self._workload.seeds, self._workload.find_key
        right = {arm: self.stack(find_key(arm, seed, num_kept) for seed in seeds) for arm in CURVE_ARMS}
        arms = {arm: self.summarise_arm(self.make_arm(arm, num_kept), right[arm]) for arm in CURVE_ARMS}
        return CurvePoint(
            keep_fraction=keep_fraction,
            num_rows=num_kept,
            curated=arms["curated"],
            random=arms["random"],
            comparison=compare(right["curated"], right["random"], "curated", "random", self._seed),
        )

    def compare_baselines(self) -> list[BaselineSummary]:
        """Return how far the baselines doubt the same rows."""
        if not self._workload.wanted.baseline or self._workload.watched is None:
            return []
        decided, labels = self._outcome.decided, self._data.train.labels.numpy()
        num_doubtful = int(((decided.noise_score >= DOUBTFUL_NOISE_SCORE) & (decided.suggested != labels)).sum())
        scores = read_scores(self._results[self._workload.watched])
        return [compare_doubts(name, decided.noise_score, scores[name], num_doubtful) for name in scores]

    def audit(self) -> AuditSummary | None:
        """Return how well planted errors are found: by the method, then by the baselines."""
        planting, plant = self._workload.planting, self._workload.wanted.plant
        if planting is None or plant is None:
            return None
        num_planted = int(planting.is_planted.sum())
        return AuditSummary(
            kind=plant.kind,
            rate=plant.rate,
            num_judged=int(planting.is_judged.sum()),
            num_planted=num_planted,
            detections=self._detect(planting),
            reading=warn_of_few(num_planted) + _READING,
        )

    def _detect(self, planting: Planting) -> list[DetectionSummary]:
        judged = planting.is_judged
        planted = planting.is_planted[judged]
        noise = self._results[AUDIT_KEY]["noise"].numpy()[judged]
        detections = [summarise_detection(self._data.method_name, noise, planted)]
        if AUDIT_BASELINE_KEY in self._results:
            for name, scores in read_scores(self._results[AUDIT_BASELINE_KEY]).items():
                detections.append(
                    summarise_detection(name, scores.noise_score[judged], planted, doubt=-scores.score[judged])
                )
        return detections
