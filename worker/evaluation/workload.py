"""The work of an evaluation: every training in its order, what it costs, and what it needs of those before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from sama_core import AbstractExamples
from sama_core.views import JoinedExamples, RelabelledExamples
from service.jobs.document import EvaluationSpec, JobDocument
from service.jobs.document_specs import Arm as ArmName
from service.jobs.evaluation_plan import find_twins
from service.results.rows import count_kept
from service.storage.estimates import count_plain_trainings
from worker.evaluation.arms import Arm, ArmPlan, Trusted
from worker.evaluation.baseline import read_scores
from worker.evaluation.plant import Planting, move_votes, plant_errors
from worker.evaluation.runs import AbstractRun, MethodRun, PlainRun, PlainSetting, Result
from worker.phases.reading import JobData
from worker.phases.scoring import Outcome

CURVE_ARMS: tuple[ArmName, ...] = ("curated", "random")
AUDIT_KEY, AUDIT_BASELINE_KEY = "audit", "audit-baseline"

Results = Mapping[str, Result]


@dataclass(frozen=True)
class PlannedRun:
    """A training to come.

    Attributes:
        key: its name in checkpoints and results.
        title: its name in words.
        cost: examples put through a plain step, or as dear as that.
        build: makes it ready, from the results of those before.
    """

    key: str
    title: str
    cost: float
    build: Callable[[Results], AbstractRun]


def make_key(arm: ArmName, seed: int, num_kept: int | None = None) -> str:
    """Return the key of an arm's training; `num_kept` tells the points of the prune curve apart."""
    return f"{arm}/{seed}" if num_kept is None else f"{arm}@{num_kept}/{seed}"


class Workload:
    """Every training of a job's evaluation.

    Attributes:
        wanted: the document's section.
        seeds: of the arms.
        num_steps: of every plain training.
        arm_plan: what the arms are made from.
        twins: arms that would be the training of another one over again, each with that one, whose results it takes.
        planting: planted errors; None where none were asked for, or there is no row to plant one in.
        watched: key of the training that shows what the baselines say; None where no one asks.
        fractions: keep fraction -> rows kept, of the prune curve.
    """

    def __init__(self, document: JobDocument, data: JobData, outcome: Outcome, device: torch.device) -> None:
        assert document.evaluation is not None
        self.wanted: EvaluationSpec = document.evaluation
        options = data.options
        first = document.training.seed + document.method.seeds  # none of those that the curation started from
        self.seeds = list(range(first, first + self.wanted.seeds))
        self.num_steps = -(-len(data.train) // options.batch_size) * options.epochs
        self.arm_plan = _make_arm_plan(document, data, outcome)
        self.twins = find_twins(document)
        self.planting = self._plant(data, outcome)
        self.watched = self._choose_watched()
        total, num_labels = len(data.tables.train), int((self.arm_plan.rank >= 0).sum())
        shares = self.wanted.keep_fractions or ()
        self.fractions = {share: count_kept(share, total, num_labels) for share in shares}
        self._data, self._device = data, device
        self._setting = PlainSetting(data, device, self.num_steps)
        self._pool = _join_pool(data, outcome)
        self._method_cost = count_plain_trainings(document.method)

    def _plant(self, data: JobData, outcome: Outcome) -> Planting | None:
        if self.wanted.plant is None:
            return None
        is_trusted = np.zeros(len(data.train), dtype=np.bool_)
        if data.meta is not None and data.meta.groups is not None and data.train.groups is not None:
            is_trusted = np.isin(data.train.groups.numpy(), data.meta.groups.numpy())  # every copy of a trusted row
        return plant_errors(
            data.train.labels.numpy(),
            is_trusted,
            self.wanted.plant,
            num_classes=data.train.num_classes,
            seed=data.options.seed,
            probabilities=outcome.decided.probabilities,
        )

    def _choose_watched(self) -> str | None:
        """Return the training that shows the losses: that of the arm `full`, which is made anyway, where there is one.

        It stands first, so that the arm `loss` can go by it.
        """
        if not self.wanted.baseline and "loss" not in self.wanted.arms:
            return None
        return make_key("full", self.seeds[0]) if "full" in self.wanted.arms else "baseline"

    def find_key(self, arm: ArmName, seed: int, num_kept: int | None = None) -> str:
        """Return the key of an arm, or of a point of the prune curve: that of the arm where it keeps as many rows."""
        if num_kept is None or (num_kept == self.arm_plan.num_kept and arm in self.wanted.arms):
            return make_key(self.twins.get(arm, arm), seed)
        return make_key(arm, seed, num_kept)

    def list_runs(self) -> list[PlannedRun]:
        """Return every training, each once: arms seed by seed, so that they are paired early on; the method last."""
        runs: dict[str, PlannedRun] = {}
        if self.watched is not None:
            runs[self.watched] = self._plan_arm("full", self.seeds[0])
            if "full" not in self.wanted.arms:
                runs[self.watched] = replace(runs[self.watched], key=self.watched, title="plain training")
        for seed in self.seeds:
            for arm in self.wanted.arms:
                if arm not in self.twins:
                    runs.setdefault(make_key(arm, seed), self._plan_arm(arm, seed))
            for num_kept in self.fractions.values():
                for arm in CURVE_ARMS:
                    key = self.find_key(arm, seed, num_kept)
                    runs.setdefault(key, self._plan_arm(arm, seed, num_kept))
        if self.planting is not None:
            runs |= {run.key: run for run in self._plan_audit(self.planting)}
        return list(runs.values())

    def make_arm(self, arm: ArmName, seed: int, results: Results, num_kept: int | None = None) -> Arm:
        """Return an arm; that of the loss goes by the watched training."""
        plan = self.arm_plan
        if arm == "loss":
            assert self.watched is not None, "a training is watched for this arm"
            plan = replace(plan, loss_score=read_scores(results[self.watched])["loss"].score)
        return plan.make(arm, seed, num_kept)

    def _plan_arm(self, arm: ArmName, seed: int, num_kept: int | None = None) -> PlannedRun:
        size = "" if num_kept is None else f" with {num_kept:,} rows"
        build = partial(self._build_arm, arm, seed, num_kept)
        return PlannedRun(make_key(arm, seed, num_kept), f"arm {arm}{size}, seed {seed}", self._cost(arm), build)

    def _cost(self, arm: ArmName) -> float:
        size = self._data.options.batch_size
        trusted = self.arm_plan.trusted
        if arm == "meta" and trusted is not None:
            size = min(size, len(trusted.labels))
        return float(self.num_steps * size)

    def _build_arm(self, name: ArmName, seed: int, num_kept: int | None, results: Results) -> PlainRun:
        arm = self.make_arm(name, seed, results, num_kept)
        return PlainRun(
            f"arm {name}",
            self._setting,
            RelabelledExamples(self._pool, torch.from_numpy(arm.labels)),
            arm,
            seed=seed,
            is_tested=name in self.wanted.arms or num_kept is not None,
            is_watched=name == "full" and seed == self.seeds[0] and self.watched is not None,
        )

    def _plan_audit(self, planting: Planting) -> list[PlannedRun]:
        """Return the trainings on planted errors: a plain one where the baselines are wanted, then the method's."""
        runs = []
        if self.wanted.baseline:
            title = "plain training on planted errors"
            runs.append(PlannedRun(AUDIT_BASELINE_KEY, title, self._cost("full"), self._build_audit_baseline))
        title = f"method {self._data.method_name} on planted errors"
        cost = self._cost("full") * self._method_cost
        return [*runs, PlannedRun(AUDIT_KEY, title, cost, partial(self._build_audit, planting))]

    def _build_audit_baseline(self, _results: Results) -> PlainRun:
        assert self.planting is not None
        arm = replace(self.arm_plan.make("full", self.seeds[0]), labels=self.planting.labels)
        planted = RelabelledExamples(self._data.train, torch.from_numpy(arm.labels))
        seed = self._data.options.seed
        return PlainRun("planted errors", self._setting, planted, arm, seed=seed, is_tested=False, is_watched=True)

    def _build_audit(self, planting: Planting, _results: Results) -> MethodRun:
        data = self._data
        planted = RelabelledExamples(data.train, torch.from_numpy(planting.labels))
        planted.sources = data.train.sources
        if data.train.votes is not None:
            planted.votes = torch.from_numpy(move_votes(data.train.votes.numpy(), planting, data.options.seed))
        return MethodRun(data, planted, self._device)


def _make_arm_plan(document: JobDocument, data: JobData, outcome: Outcome) -> ArmPlan:
    """Return what the arms are made from: rows with a given label, then those that got their first one."""
    rank, labels, weight = outcome.rank, outcome.labels, outcome.decisions.weight
    soft = outcome.decided.probabilities if document.has_soft_labels else None
    if outcome.added is not None:
        added = outcome.added
        rank, labels = np.concatenate([rank, added.rank]), np.concatenate([labels, np.maximum(added.labels, 0)])
        weight = np.concatenate([weight, added.weight])
        soft = None if soft is None else np.concatenate([soft, added.suggestions.probabilities])
    return ArmPlan(
        given=data.train.labels.numpy(),
        rank=rank,
        num_kept=outcome.num_kept,
        curated=labels,
        weight=None if document.task == "prune" or soft is not None else weight,
        soft=soft,
        trusted=None if data.meta is None else Trusted(data.meta.labels.numpy(), _find_train_rows(data)),
    )


def _find_train_rows(data: JobData) -> NDArray[np.int64]:
    """Return for each trusted row its number among the labelled curated rows, -1 where it is none of them."""
    assert data.meta is not None
    if data.meta.train_rows is not None:
        return data.meta.train_rows.numpy()
    links = data.tables.meta_train_rows
    assert data.tables.meta is not None
    assert links is not None, "a meta set is linked to the curated rows when it is read"
    curated = links[data.tables.meta.labels >= 0]
    places = np.minimum(np.searchsorted(data.labelled, curated), len(data.labelled) - 1)
    return np.where(data.labelled[places] == curated, places, -1).astype(np.int64)


def _join_pool(data: JobData, outcome: Outcome) -> AbstractExamples:
    """Return all rows that an arm may train on, in the order of `ArmPlan`."""
    pool: AbstractExamples = data.train
    if outcome.added is not None:
        assert data.unlabelled is not None, "labels were added to these rows"
        pool = JoinedExamples(pool, data.unlabelled.examples)
    return pool if data.meta is None else JoinedExamples(pool, data.meta)
