"""A budget in place of epochs: what the watch decides, by a clock of its own, and real jobs with little time."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select, update

from sama_core import SolveCode, SolveStatus, StepReport
from service.db.engine import Database
from service.errors import ServiceError
from service.jobs.repository import JobRepository
from service.jobs.tables import JobTable
from service.settings import Settings
from tests.worker.jobs import (
    claim_job,
    compare_results,
    list_messages,
    make_document,
    queue_job,
    read_chunks,
    read_result,
    release,
    run_claimed,
    run_to_end,
    write_points,
)
from worker.attempt import run_attempt
from worker.exits import DONE, FAILED, STOPPED
from worker.schedule import (
    Budget,
    ScheduleCut,
    ScheduleTooLongError,
    ScheduleWatch,
    describe_schedule,
    find_cut,
    is_settled,
)
from worker.stop import StopFlag

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Scene:
    """Steps that take as long as told, seen by a watch.

    The clock stands still but for the steps and the time before the first one.
    """

    def __init__(
        self, max_seconds: float, *, epochs: int, num_steps: int, preparing: float = 0.0, **watch: Any
    ) -> None:
        self.now, self.num_steps, self.step = 100.0, num_steps, 0
        self.budget = Budget(max_seconds, self.now + max_seconds, self.read)
        usual: dict[str, Any] = {"warmup_steps": 10, "unroll_steps": 2, "cost": 3.0, "evaluation": 0.0}
        self.watch = ScheduleWatch(self.budget, epochs=epochs, clock=self.read, **{**usual, **watch})
        self.now += preparing

    def read(self) -> float:
        return self.now

    def run(self, plain: float, meta: float, *, num_before: int = 0, before: float = 0.0) -> None:
        """Do steps of these seconds, without and with a meta step, until the watch is satisfied or objects."""
        while self.step < self.num_steps and not self.watch.is_settled:
            self.step += 1
            place = self.step - num_before
            is_due = place > 10 and place % 2 == 0
            self.now += before if place <= 0 else meta if is_due else plain
            nothing = torch.zeros(())
            self.watch.see(
                StepReport(
                    self.step, self.num_steps, nothing, None, None, torch.ones(1),
                    SolveStatus(SolveCode.RUNNING, self.step, ""),
                ),
                num_before,
            )  # fmt: skip


def test_a_schedule_that_fits_is_left_alone() -> None:
    scene = Scene(1000.0, epochs=10, num_steps=400)
    scene.run(plain=1.0, meta=3.0)
    assert scene.step == 30, "ten of the warm-up, twenty that count"


def test_short_steps_are_watched_for_a_fiftieth_of_the_time() -> None:
    scene = Scene(1000.0, epochs=10, num_steps=400)
    scene.run(plain=0.125, meta=0.375)
    assert scene.step == 90, "ten of the warm-up, then 20 s"


def test_a_schedule_that_does_not_fit_is_cut_to_what_fits() -> None:
    scene = Scene(700.0, epochs=10, num_steps=400, preparing=20.0)
    with pytest.raises(ScheduleTooLongError) as caught:
        scene.run(plain=1.0, meta=3.0)
    cut = caught.value.cut
    # 2 s a step, 80 s an epoch; after 20 + 10 + 20 x 2 s four fifths of 630 s hold 6 epochs behind 21 s
    assert (cut.epochs, cut.wanted) == (6, 10)
    assert caught.value.is_final
    assert str(cut).startswith(
        "epochs 10 -> 6: training 10 epochs would take about 800 s, and of limits.max_seconds 630 s"
    )


def test_the_evaluation_counts() -> None:
    scene = Scene(1000.0, epochs=10, num_steps=400, evaluation=0.5)
    with pytest.raises(ScheduleTooLongError, match=r"epochs 10 -> 6: training and evaluating 10 epochs would take"):
        scene.run(plain=1.0, meta=3.0)


def test_the_decisions_count_whatever_the_epochs() -> None:
    scene = Scene(1000.0, epochs=10, num_steps=400, closing=300.0)
    with pytest.raises(ScheduleTooLongError) as caught:
        scene.run(plain=1.0, meta=3.0)
    # 80 s an epoch; four fifths of 1000 - 10 - 20 x 2 - 300 s hold 6 of them
    assert caught.value.cut.epochs == 6
    assert "epochs would take about 1,100 s, and of limits.max_seconds 950 s are left" in str(caught.value.cut)


def test_with_time_for_warm_up_steps_alone_the_meta_steps_are_reckoned_in() -> None:
    scene = Scene(60.0, epochs=4, num_steps=40)
    with pytest.raises(ScheduleTooLongError, match="epochs 4 -> 1: training 4 epochs would take about 120 s"):
        scene.run(plain=1.0, meta=3.0)
    assert scene.step == 7, "a tenth of the time is all that may be spent on measuring"


def test_one_epoch_is_tried_where_it_fits_without_a_margin() -> None:
    scene = Scene(100.0, epochs=2, num_steps=40, warmup_steps=0, unroll_steps=1)
    with pytest.raises(ScheduleTooLongError, match="epochs 2 -> 1"):
        scene.run(plain=4.0, meta=4.0)


def test_a_preparation_that_tells_of_far_too_long_a_training_ends_it_early() -> None:
    scene = Scene(100.0, epochs=100, num_steps=1100)
    with pytest.raises(
        ScheduleTooLongError, match="epochs 100 -> 2: training 100 epochs would take about 3,100 s"
    ) as c:
        scene.run(plain=1.0, meta=3.0, num_before=100, before=1.0)
    assert scene.step == 11
    assert not c.value.is_final, "the training begun anew is watched again"


def test_a_preparation_counts_as_part_of_every_epoch() -> None:
    scene = Scene(1000.0, epochs=10, num_steps=500)
    with pytest.raises(ScheduleTooLongError) as caught:
        scene.run(plain=1.0, meta=5.0, num_before=100, before=0.5)
    # 50 s before, then 3 s a step: 125 s an epoch in all; four fifths of 1000 - 50 - 10 - 20 x 3 s hold 5 of them
    assert caught.value.cut.epochs == 5
    assert caught.value.is_final


@pytest.mark.parametrize("epochs", [1, 3])
def test_not_even_one_epoch_is_refused_with_what_it_would_take(epochs: int) -> None:
    scene = Scene(30.0, epochs=epochs, num_steps=40 * epochs, warmup_steps=0, cost=1.0)
    with pytest.raises(
        ServiceError,
        match=r"Not even one epoch fits the job's time limit: \d+ s of it are left; .* took 0\.0 s of 30 s",
    ) as c:
        scene.run(plain=2.0, meta=2.0)
    assert (c.value.code, c.value.param) == ("time_limit", "limits.max_seconds")
    assert str(c.value.hint).startswith("Raise limits.max_seconds to about 1")


def test_a_checkpoint_tells_the_cut_at_every_stage() -> None:
    cut = ScheduleCut(7, 20, "too long")
    during = describe_schedule(cut, is_settled=True)
    assert is_settled(during)
    assert find_cut(during) == find_cut({"facts": {"schedule": cut.to_json()}}) == cut
    assert find_cut({"facts": {}}) is None
    assert not is_settled(describe_schedule(None, is_settled=False))


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write_points(tmp_path / "points.parquet")


def make_long(points: Path, epochs: int = 10_000, batch_size: int = 20) -> dict[str, Any]:
    """Return a job that would take minutes."""
    training = {"epochs": epochs, "batch_size": batch_size}
    return make_document(points, evaluation=None, test=None, model={"name": "linear"}, training=training)


def limit(database: Database, job_id: str, max_seconds: float) -> None:
    with database.write() as session:
        session.execute(update(JobTable).where(JobTable.id == job_id).values(max_seconds=max_seconds))


def read_schedule(database: Database, job_id: str) -> tuple[int, dict[str, Any]]:
    method = read_result(database, job_id)[0].manifest["method"]
    return method["hyperparameters"]["epochs"], method["facts"].get("schedule", {})


@on_sqlite
def test_a_job_with_little_time_takes_fewer_epochs_and_gives_what_that_many_give(
    database: Database, settings: Settings, points: Path
) -> None:
    job_id = queue_job(database, make_long(points))
    limit(database, job_id, 4.0)
    assert run_claimed(database, settings, claim_job(database)) == DONE, list_messages(database, job_id)
    epochs, schedule = read_schedule(database, job_id)
    assert 1 <= epochs < 10_000
    assert (schedule["epochs"], schedule["wanted"]) == (epochs, 10_000)
    told = [message for message in list_messages(database, job_id) if message.startswith("epochs ")]
    assert told[-1].endswith(f" -> {epochs}: {schedule['because']}")
    with database.read() as session:
        steps = [point.step for point in JobRepository(session).list_metrics(job_id)]
    assert len(set(steps)) == len(steps)
    facts = read_result(database, job_id)[0].manifest["method"]["facts"]
    assert steps[-1] == facts["num_base_steps"] >= 6 * epochs
    same = run_to_end(database, settings, make_long(points, epochs))
    assert read_chunks(database, job_id) == read_chunks(database, same)
    assert read_schedule(database, same) == (epochs, {})


class StopAfterCut(StopFlag):
    """A stop that is asked for once the schedule was cut, at the n-th look after that."""

    def __init__(self, database: Database, job_id: str, num_looks: int) -> None:
        super().__init__()
        self._database, self._job_id, self._num_left = database, job_id, num_looks

    @property
    def is_set(self) -> bool:
        if any(" -> " in message for message in list_messages(self._database, self._job_id)):
            self._num_left -= 1
        return self._num_left < 0


@on_sqlite
@pytest.mark.parametrize("num_looks", [0, 5])
def test_a_resumed_job_keeps_the_epochs_it_was_cut_to(
    database: Database, settings: Settings, points: Path, num_looks: int
) -> None:
    job_id = queue_job(database, make_long(points))
    limit(database, job_id, 3.0)
    claim = claim_job(database)
    assert run_claimed(database, settings, claim, StopAfterCut(database, job_id, num_looks)) == STOPPED
    release(database, claim)
    told = [message for message in list_messages(database, job_id) if message.startswith("epochs ")]
    limit(database, job_id, 600.0)
    assert run_claimed(database, settings, claim_job(database)) == DONE
    epochs, schedule = read_schedule(database, job_id)
    assert told[-1].endswith(f" -> {epochs}: {schedule['because']}")
    assert schedule["wanted"] == 10_000
    assert told == [message for message in list_messages(database, job_id) if message.startswith("epochs ")]
    same = run_to_end(database, settings, make_long(points, epochs))
    assert read_chunks(database, job_id) == read_chunks(database, same)


@on_sqlite
def test_a_job_without_time_for_one_epoch_fails_with_a_hint(
    database: Database, settings: Settings, points: Path
) -> None:
    job_id = queue_job(database, make_long(points))
    limit(database, job_id, 0.02)
    assert run_claimed(database, settings, claim_job(database)) == FAILED
    with database.read() as session:
        job = session.scalars(select(JobTable).where(JobTable.id == job_id)).one()
        assert job.error_code == "time_limit"
        assert job.error_hint is not None
        assert job.error_hint.startswith("Raise limits.max_seconds to about ")


@on_sqlite
def test_the_time_ends_when_the_supervisor_says(database: Database, settings: Settings, points: Path) -> None:
    job_id, claim = queue_job(database, make_long(points)), claim_job(database)
    ends_at = time.monotonic() + 0.02
    assert run_attempt(database, settings, job_id, claim.attempt, StopFlag(), ends_at=ends_at) == FAILED
    with database.read() as session:
        assert session.scalars(select(JobTable.error_code).where(JobTable.id == job_id)).one() == "time_limit"


class Ticks:
    """A clock of jobs that goes on by a sixteenth of a second at every look, and not otherwise.

    A training that is watched looks at it at every step. However busy the machine, the schedule comes out the same.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 0.0625
        return self._now


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    """Return the clock by which the attempts of this process reckon their schedules."""
    clock = Ticks()
    monkeypatch.setattr("worker.phases.sequence.Budget", partial(Budget, clock=clock))
    monkeypatch.setattr("worker.phases.training.ScheduleWatch", partial(ScheduleWatch, clock=clock))
    return clock


@on_sqlite
@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two cores make two devices; this machine has one")
def test_a_training_that_two_processes_share_is_cut_in_both(
    database: Database, settings: Settings, points: Path, ticks: Ticks
) -> None:
    shared = settings.model_copy(update={"num_threads": 2})
    job_id = queue_job(database, {**make_long(points), "resources": {"devices": 2}})
    claim = claim_job(database)
    ended = run_attempt(database, shared, job_id, claim.attempt, StopFlag(), ends_at=ticks() + 60.0)
    assert ended == DONE, list_messages(database, job_id)
    epochs, schedule = read_schedule(database, job_id)
    assert (schedule["epochs"], schedule["wanted"]) == (epochs, 10_000)
    assert 1 < epochs < 100
    assert list_messages(database, job_id).count("training on 2 devices") >= 2, "begun anew, by both"
    # Had the other process kept another schedule, its learning rates would not be those of this one.
    compare_results(database, job_id, run_to_end(database, shared, make_long(points, epochs)))
