"""How much an evaluation is: which trainings it takes, counted alike by the estimate and by the progress."""

from dataclasses import dataclass

from service.jobs.document import BASELINES, JobDocument
from service.jobs.document_specs import Arm
from service.wording import write_count

# Arms that train on the same rows where the curated rows are all rows as they were.
_ALIKE: tuple[tuple[Arm, ...], ...] = (("full", "curated", "random", "loss"), ("full-and-meta", "curated-and-meta"))


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """Trainings of an evaluation; every one but the method's own is a plain training of equal steps.

    Attributes:
        num_arms: arms that are trained; none for those that stand for each other.
        num_seeds: trainings of each arm.
        num_curve: trainings of the prune curve that are not among the arms.
        num_baseline: trainings for the baseline alone; none where the arm `full` shows what it needs.
        num_audit: plain trainings on planted errors.
        num_method: trainings with the method itself, on planted errors.
    """

    num_arms: int = 0
    num_seeds: int = 0
    num_curve: int = 0
    num_baseline: int = 0
    num_audit: int = 0
    num_method: int = 0

    @property
    def num_plain(self) -> int:
        """Plain trainings in all."""
        return self.num_arms * self.num_seeds + self.num_curve + self.num_baseline + self.num_audit

    def describe(self) -> str:
        """Return the trainings in words."""
        arms = f"{write_count(self.num_arms, 'arm')} x {write_count(self.num_seeds, 'seed')}"
        trainings = {
            arms: self.num_arms,
            f"{self.num_curve} for the prune curve": self.num_curve,
            "1 for the baseline": self.num_baseline,
            "1 for the baseline on planted errors": self.num_audit,
        }
        parts = [words for words, number in trainings.items() if number]
        inner = f" ({', '.join(parts)})" if parts else ""
        again = ", and the method once more on planted errors" if self.num_method else ""
        return f"{write_count(self.num_plain, 'more training')} for the evaluation{inner}{again}"


def find_twins(document: JobDocument) -> dict[Arm, Arm]:
    """Return the wanted arms that would be the training of another one over again, each with that one.

    So it is where nothing is dropped, weighted or corrected: every row is kept, and counts alike.
    """
    is_unweighted = document.task == "prune" or (document.task == "reweight" and document.method.name in BASELINES)
    if document.evaluation is None or document.keep_fraction < 1.0 or not is_unweighted:
        return {}
    wanted = document.evaluation.arms
    groups = [[arm for arm in alike if arm in wanted] for alike in _ALIKE]
    return {arm: group[0] for group in groups for arm in group[1:]}


def plan_evaluation(document: JobDocument) -> EvaluationPlan:
    """Return the trainings that a document's evaluation takes.

    Example:
        >>> from service.jobs.document import parse_document
        >>> document = parse_document({
        ...     "dataset": {"uri": "d.csv", "features": "*", "label": "y"}, "meta": {"uri": "m.csv"},
        ...     "test": {"uri": "t.csv"}, "evaluation": {"plant": {}},
        ... })
        >>> plan_evaluation(document).describe()[:58]
        '19 more trainings for the evaluation (6 arms x 3 seeds, 1 '
    """
    wanted = document.evaluation
    if wanted is None:
        return EvaluationPlan()
    at_job = {arm for arm in wanted.arms if arm in {"curated", "random"}}
    measured = sum(2 - (len(at_job) if share == document.keep_fraction else 0) for share in wanted.keep_fractions or ())
    return EvaluationPlan(
        num_arms=len(wanted.arms) - len(find_twins(document)),
        num_seeds=wanted.seeds,
        num_curve=measured * wanted.seeds,
        num_baseline=int((wanted.baseline or "loss" in wanted.arms) and "full" not in wanted.arms),
        num_audit=int(wanted.plant is not None and wanted.baseline),
        num_method=int(wanted.plant is not None),
    )
