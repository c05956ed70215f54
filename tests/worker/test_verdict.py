"""Verdicts: words that say no more than the numbers, for every control."""

import numpy as np
import pytest

from service.jobs.document_specs import Arm
from service.results.schemas import AuditSummary, Comparison, DetectionSummary
from worker.evaluation.verdict import compare_arms, write_verdict

BETTER, EQUAL, WORSE = (0.01, 0.03), (-0.01, 0.03), (-0.03, -0.01)


def make_comparison(arm: str, interval: tuple[float, float], subject: str = "curated") -> Comparison:
    return Comparison(subject=subject, arm=arm, difference=sum(interval) / 2, interval=interval)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arm", "interval", "words"),
    [
        ("random", BETTER, "Curated is better than random: +2.0 points of test accuracy (95% interval +1.0 to +3.0)."),
        (
            "random",
            EQUAL,
            "Curated is no better than random: +1.0 points of test accuracy (95% interval -1.0 to +3.0).",
        ),
        ("random", WORSE, "Curated is worse than random: -2.0 points of test accuracy (95% interval -3.0 to -1.0)."),
        ("full", BETTER, "Against the full data: better than training on everything, +2.0 points of"),
        ("full", EQUAL, "Against the full data: no measurable difference from training on everything, +1.0"),
        ("full", WORSE, "Against the full data: worse than training on everything, -2.0 points"),
        ("loss", BETTER, "Curated is better than as many rows of the lowest loss: +2.0"),
        ("loss", EQUAL, "Curated is no better than as many rows of the lowest loss: +1.0"),
        ("loss", WORSE, "Curated is worse than as many rows of the lowest loss: -2.0"),
        ("meta", BETTER, "Curated is better than training on the meta set alone: +2.0"),
        ("meta", EQUAL, "Training on the meta set alone does as well: curated stands at +1.0 points"),
        ("meta", WORSE, "Training on the meta set alone does better: curated stands at -2.0 points"),
        ("full-and-meta", BETTER, "Curated is better than training + meta set without reweighting: +2.0"),
        ("full-and-meta", EQUAL, "Training + meta set without reweighting does as well: curated stands at +1.0"),
        ("full-and-meta", WORSE, "Training + meta set without reweighting does better: curated stands at -2.0"),
    ],
)
def test_every_control_has_its_words(arm: str, interval: tuple[float, float], words: str) -> None:
    assert write_verdict([make_comparison(arm, interval)], num_seeds=3).startswith(words)


def test_a_bootstrap_that_does_not_bear_it_out_is_told() -> None:
    comparison = make_comparison("random", BETTER)
    doubted = comparison.model_copy(update={"bootstrap": (-0.002, 0.04)})
    assert "(95% interval +1.0 to +3.0; the bootstrap's, -0.2 to +4.0, holds 0)." in write_verdict(
        [doubted], num_seeds=3
    )
    borne_out = comparison.model_copy(update={"bootstrap": (0.002, 0.04)})
    assert write_verdict([borne_out], num_seeds=3) == write_verdict([comparison], num_seeds=3)


def test_beside_the_meta_set_the_fair_counterpart_speaks() -> None:
    comparisons = [
        make_comparison("random", BETTER),
        make_comparison("meta", EQUAL),
        make_comparison("meta", BETTER, "curated-and-meta"),
    ]
    verdict = write_verdict(comparisons, num_seeds=3)
    assert verdict.startswith("Curated is better than random")
    assert "Curated with the meta set is better than training on the meta set alone: +2.0" in verdict
    assert "does as well" not in verdict


@pytest.mark.parametrize("counterpart", [BETTER, EQUAL, WORSE])
def test_trusted_rows_that_do_better_than_the_curated_ones_without_them_are_told(
    counterpart: tuple[float, float],
) -> None:
    fair = make_comparison("meta", counterpart, "curated-and-meta")
    verdict = write_verdict([make_comparison("meta", WORSE), fair], num_seeds=3)
    told = (
        "Training on the meta set alone does better than on the curated rows without it: -2.0 points of test accuracy "
        "(95% interval -3.0 to -1.0)."
    )
    assert verdict == f"{write_verdict([fair], num_seeds=3)} {told}"
    assert "without it" not in write_verdict([make_comparison("meta", WORSE)], num_seeds=3)


@pytest.mark.parametrize(
    ("num_seeds", "caveat"),
    [
        (1, "From 1 seed alone: the intervals leave out how much trainings differ. Curated"),
        (2, "From 2 seeds alone: they hardly show how much trainings differ. Curated"),
        (3, "Curated"),
    ],
)
def test_few_seeds_are_told_first(num_seeds: int, caveat: str) -> None:
    assert write_verdict([make_comparison("random", BETTER)], num_seeds=num_seeds).startswith(caveat)
    assert write_verdict([], num_seeds=num_seeds).startswith("Nothing to compare")


def test_arms_that_are_one_training_are_not_compared() -> None:
    right = np.ones((3, 5))
    correct: dict[Arm, np.ndarray] = dict.fromkeys(("full", "curated", "random", "meta"), right)
    twins: dict[Arm, Arm] = {"curated": "full", "random": "full"}
    compared = compare_arms(correct, 0, twins)
    assert [found.arm for found in compared] == ["meta"]
    assert write_verdict(compared, num_seeds=3, twins=twins).startswith(
        "Nothing was dropped or weighted: full is also what curated and random would train on, so that there is no "
        "difference to measure. Training on the meta set alone does as well"
    )


def test_the_audit_is_told_beside_the_baselines() -> None:
    found = [
        DetectionSummary(name=name, auroc=0.9, average_precision=0.8, precision=precision, reliability=[])
        for name, precision in (("sama", 0.85), ("loss", 0.7), ("aum", 0.75))
    ]
    audit = AuditSummary(kind="uniform", rate=0.1, num_judged=400, num_planted=40, detections=found, reading="")
    assert write_verdict([], audit, num_seeds=3) == (
        "Of 40 planted errors 85.0% are among the 40 rows doubted most, by loss 70.0%, by aum 75.0%."
    )


def test_too_few_planted_errors_are_told_before_the_figure() -> None:
    found = [DetectionSummary(name="sama", auroc=0.9, average_precision=0.8, precision=0.0, reliability=[])]
    audit = AuditSummary(kind="uniform", rate=0.01, num_judged=400, num_planted=4, detections=found, reading="")
    assert write_verdict([], audit, num_seeds=3) == (
        "Only 4 errors planted, which is too few to say how many are found; wanted at least 10: a higher "
        "evaluation.plant.rate, or more rows. Of 4 planted errors 0.0% are among the 4 rows doubted most."
    )


def test_without_a_control_there_is_nothing_to_say() -> None:
    assert compare_arms({"curated": np.ones((1, 5))}, seed=0) == []
    assert compare_arms({"full": np.ones((1, 5)), "random": np.ones((1, 5))}, seed=0) == []
    assert write_verdict([], num_seeds=3).startswith("Nothing to compare")


def test_differences_are_paired_by_seed_and_example_and_have_both_intervals() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random((1, 200)) < 0.5
    full = np.repeat(hard, 3, axis=0)
    curated = full.copy()
    curated[:, np.flatnonzero(~hard[0])[:10]] = True
    comparison = compare_arms({"curated": curated, "full": full}, seed=0)[0]
    assert comparison.difference == pytest.approx(0.05)
    assert comparison.interval[0] > 0.01, "pairing takes away the spread of easy and hard examples"
    assert comparison.bootstrap is not None
    assert comparison.bootstrap[0] > 0.01
    assert comparison.finding == "better"


def test_both_curated_arms_stand_beside_the_controls_that_saw_the_meta_set() -> None:
    names: tuple[Arm, ...] = (
        "full", "curated", "random", "loss", "meta", "full-and-meta", "curated-and-meta",
    )  # fmt: skip
    compared = compare_arms(dict.fromkeys(names, np.ones((2, 5))), seed=0)
    assert [(found.subject, found.arm) for found in compared] == [
        ("curated", "full"),
        ("curated", "random"),
        ("curated", "loss"),
        ("curated", "meta"),
        ("curated", "full-and-meta"),
        ("curated-and-meta", "meta"),
        ("curated-and-meta", "full-and-meta"),
    ]
