"""Progress, rate, time left and curves: throttled, bounded, and never backwards."""

import pytest
import torch

from sama_core import SolveCode, SolveStatus, StepReport
from service.db.engine import Database
from service.errors import StaleAttemptError
from service.jobs.repository import JobRepository
from service.jobs.state import Phase
from service.jobs.tables import JobTable, MetricTable
from tests.service.attempts.factory import add_job, claim_one
from worker.progress import MAX_METRIC_POINTS, ProgressWriter


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A claimed job, the writer of its attempt, and a look at what is written."""

    def __init__(self, database: Database, min_seconds: float = 1.0) -> None:
        self.database = database
        self.job_id = add_job(database)
        self.clock = Clock()
        claim = claim_one(database)
        self.writer = ProgressWriter(database, claim.job_id, claim.attempt, min_seconds=min_seconds, clock=self.clock)

    def read(self) -> JobTable:
        with self.database.read() as session:
            return JobRepository(session).get(self.job_id)

    def read_metrics(self) -> list[MetricTable]:
        with self.database.read() as session:
            return list(JobRepository(session).list_metrics(self.job_id))

    def work(self, steps: range, num_steps: int, seconds: float) -> None:
        for step in steps:
            self.clock.now += seconds
            self.writer.add_report(make_report(step, num_steps))
            self.writer.advance(step / num_steps, num_examples=10)


def make_report(step: int, num_steps: int, meta: float | None = None) -> StepReport:
    number = torch.tensor(float(step))
    meta_loss = None if meta is None else torch.tensor(meta)
    status = SolveStatus(SolveCode.RUNNING, step, "running")
    return StepReport(step, num_steps, number, meta_loss, meta_loss, torch.ones(10), status)


@pytest.fixture
def watched(database: Database) -> Watched:
    return Watched(database)


def test_rate_and_time_left_follow_from_the_pace(watched: Watched) -> None:
    watched.writer.plan(Phase.TRAINING, 1000 * 97.0)
    watched.writer.enter_phase(Phase.TRAINING, "training")
    watched.work(range(1, 51), 100, seconds=0.5)
    watched.writer.flush()
    job = watched.read()
    assert job.phase == "training"
    assert job.progress == pytest.approx((2.0 + 97.0 / 2) / 100)
    assert job.rate == pytest.approx(20.0)
    assert job.rate_unit == "examples/s"
    assert job.eta_seconds == pytest.approx(25.0, rel=0.05)


def test_progress_never_goes_back_from_phase_to_phase(watched: Watched) -> None:
    seen = []
    watched.writer.plan(Phase.EVALUATING, 5000.0)
    for phase in Phase:
        watched.writer.enter_phase(phase, "next")
        for fraction in (0.0, 0.5, 1.0):
            watched.clock.now += 10.0
            watched.writer.advance(fraction)
            seen.append(watched.read().progress)
    assert seen == sorted(seen)
    assert seen[-1] < 1.0, "only the final transaction says 1"


def test_writes_are_throttled(watched: Watched) -> None:
    watched.writer.enter_phase(Phase.TRAINING, "training")
    watched.work(range(1, 8), 100, seconds=0.125)
    assert watched.read_metrics() == []
    watched.work(range(8, 10), 100, seconds=0.125)
    assert [point.step for point in watched.read_metrics()] == list(range(1, 9))


def test_a_long_curve_is_thinned_and_ends_with_the_last_step(watched: Watched) -> None:
    num_steps = 2 * MAX_METRIC_POINTS + 501
    watched.writer.enter_phase(Phase.TRAINING, "training")
    for step in range(1, num_steps + 1):
        watched.writer.add_report(make_report(step, num_steps))
    watched.writer.flush()
    steps = [point.step for point in watched.read_metrics()]
    assert len(steps) <= MAX_METRIC_POINTS + 1
    assert (steps[0], steps[-1]) == (3, num_steps)


def test_between_two_meta_steps_the_last_one_is_shown(watched: Watched) -> None:
    watched.writer.enter_phase(Phase.TRAINING, "training")
    for step, meta in enumerate([None, 0.5, None, 0.25], start=1):
        watched.writer.add_report(make_report(step, 4, meta))
    watched.writer.flush()
    assert [point.meta_loss for point in watched.read_metrics()] == [None, 0.5, 0.5, 0.25]


def test_points_after_a_resume_replace_those_before(watched: Watched) -> None:
    watched.writer.enter_phase(Phase.TRAINING, "training")
    watched.work(range(1, 11), 20, seconds=0.1)
    watched.writer.flush()
    watched.writer.drop_metrics_after(4)
    assert [point.step for point in watched.read_metrics()] == [1, 2, 3, 4]


def test_an_attempt_that_lost_its_job_may_not_speak(database: Database) -> None:
    watched = Watched(database)
    with database.write() as session:
        session.get_one(JobTable, watched.job_id).attempt += 1
    for speak in (
        watched.writer.flush,
        lambda: watched.writer.add_event("model", "late"),
        lambda: watched.writer.enter_phase(Phase.READING, "late"),
    ):
        with pytest.raises(StaleAttemptError):
            speak()
