"""The life of jobs against a model of it, in random order, on both databases."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, func, select

from service.attempts.repository import AttemptRepository
from service.attempts.state import Failure
from service.db.engine import Database
from service.errors import ForbiddenTransitionError, StaleAttemptError
from service.jobs.repository import JobRepository
from service.jobs.state import CANCELLABLE_STATES, FINAL_STATES, HELD_STATES, RESUMABLE_STATES, JobState, Phase
from service.jobs.tables import JobTable
from service.results.tables import ResultTable
from tests.service.attempts.factory import (
    BROKEN,
    LOST,
    add_job,
    claim,
    expire_lease,
    get_job,
    make_result,
)

MAX_ATTEMPTS = 2


@dataclass
class ModelJob:
    """What the job's row should say."""

    state: JobState = JobState.QUEUED
    attempt: int = 0
    lost: int = 0
    results: list[int] = field(default_factory=list)

    @property
    def is_held(self) -> bool:
        return self.state in HELD_STATES

    def lose(self, failure: Failure) -> None:
        """End the attempt badly."""
        if self.state == JobState.CANCELLING:
            self.state = JobState.CANCELLED
            return
        self.lost += 1
        again = failure.retryable and self.lost < MAX_ATTEMPTS
        self.state = JobState.QUEUED if again else JobState.FAILED


class JobMachine(RuleBasedStateMachine):
    """Users, workers and the sweep do what they may in any order."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        with self.database.write() as session:
            session.execute(delete(JobTable))
        self.jobs: dict[str, ModelJob] = {}

    def pick(self, seed: int) -> str:
        return random.Random(seed).choice(sorted(self.jobs))

    def attempt(self, job_id: str, act: Callable[[AttemptRepository], object], *, allowed: bool) -> bool:
        """Do `act` in a transaction; it must be refused exactly where the model forbids it."""
        try:
            with self.database.write() as session:
                act(AttemptRepository(session))
        except StaleAttemptError:
            assert not allowed, f"{self.jobs[job_id]} was refused"
            return False
        assert allowed, f"{self.jobs[job_id]} was not refused"
        return True

    @rule()
    def submit(self) -> None:
        self.jobs[add_job(self.database, max_attempts=MAX_ATTEMPTS)] = ModelJob()

    @rule()
    def claim(self) -> None:
        queued = sorted(job_id for job_id, job in self.jobs.items() if job.state == JobState.QUEUED)
        taken = claim(self.database)
        assert (taken.job_id if taken else None) == (queued[0] if queued else None)
        if taken is not None:
            job = self.jobs[taken.job_id]
            job.state, job.attempt = JobState.VALIDATING, job.attempt + 1
            assert taken.attempt == job.attempt

    @precondition(lambda self: self.jobs)
    @rule(seed=st.integers(0, 1000), back=st.integers(0, 1), phase=st.sampled_from(Phase))
    def enter_phase(self, seed: int, back: int, phase: Phase) -> None:
        job_id = self.pick(seed)
        job, attempt = self.jobs[job_id], self.jobs[job_id].attempt - back
        allowed = job.is_held and back == 0
        if self.attempt(job_id, lambda r: r.enter_phase(job_id, attempt, phase, "x"), allowed=allowed):
            states = {Phase.VALIDATING: JobState.VALIDATING, Phase.EVALUATING: JobState.EVALUATING}
            if job.state != JobState.CANCELLING and phase != Phase.STORING:
                job.state = states.get(phase, JobState.RUNNING)

    @precondition(lambda self: self.jobs)
    @rule(seed=st.integers(0, 1000), back=st.integers(0, 1))
    def complete(self, seed: int, back: int) -> None:
        job_id = self.pick(seed)
        job, attempt = self.jobs[job_id], self.jobs[job_id].attempt - back
        allowed = job.is_held and back == 0 and job.state != JobState.CANCELLING
        if self.attempt(job_id, lambda r: r.complete(make_result(job_id, attempt), []), allowed=allowed):
            job.state = JobState.SUCCEEDED
            job.results.append(attempt)

    @precondition(lambda self: self.jobs)
    @rule(seed=st.integers(0, 1000), back=st.integers(0, 1), failure=st.sampled_from([LOST, BROKEN]))
    def fail(self, seed: int, back: int, failure: Failure) -> None:
        job_id = self.pick(seed)
        job, attempt = self.jobs[job_id], self.jobs[job_id].attempt - back
        if self.attempt(job_id, lambda r: r.fail(job_id, attempt, failure), allowed=job.is_held and back == 0):
            job.lose(failure)

    @precondition(lambda self: self.jobs)
    @rule(seed=st.integers(0, 1000), back=st.integers(0, 1))
    def release(self, seed: int, back: int) -> None:
        job_id = self.pick(seed)
        job, attempt = self.jobs[job_id], self.jobs[job_id].attempt - back
        # A worker asked to stop while a cancel is under way cancels; see the supervisor.
        act = AttemptRepository.cancel if job.state == JobState.CANCELLING else _release
        if self.attempt(job_id, lambda r: act(r, job_id, attempt), allowed=job.is_held and back == 0):
            job.state = JobState.CANCELLED if job.state == JobState.CANCELLING else JobState.QUEUED

    @precondition(lambda self: any(job.is_held for job in self.jobs.values()))
    @rule(seed=st.integers(0, 1000))
    def sweep(self, seed: int) -> None:
        held = sorted(job_id for job_id, job in self.jobs.items() if job.is_held)
        job_id = random.Random(seed).choice(held)
        expire_lease(self.database, job_id)
        with self.database.write() as session:
            repository = AttemptRepository(session)
            leases = repository.list_expired()
            assert [(lease.job_id, lease.attempt) for lease in leases] == [(job_id, self.jobs[job_id].attempt)]
            repository.fail(job_id, leases[0].attempt, LOST)
        self.jobs[job_id].lose(LOST)

    @precondition(lambda self: self.jobs)
    @rule(seed=st.integers(0, 1000))
    def request_cancel(self, seed: int) -> None:
        job_id = self.pick(seed)
        job = self.jobs[job_id]
        allowed = job.state in {*CANCELLABLE_STATES, JobState.CANCELLING, JobState.CANCELLED}
        if self.user(lambda r: r.request_cancel(job_id), allowed=allowed):
            if job.state == JobState.QUEUED:
                job.state = JobState.CANCELLED
            elif job.is_held:
                job.state = JobState.CANCELLING

    @precondition(lambda self: self.jobs)
    @rule(seed=st.integers(0, 1000))
    def resume(self, seed: int) -> None:
        job_id = self.pick(seed)
        job = self.jobs[job_id]
        if self.user(lambda r: r.resume(job_id), allowed=job.state in RESUMABLE_STATES):
            job.state, job.lost = JobState.QUEUED, 0

    @precondition(lambda self: self.jobs)
    @rule(seed=st.integers(0, 1000))
    def remove(self, seed: int) -> None:
        job_id = self.pick(seed)
        if self.user(lambda r: r.delete(job_id), allowed=self.jobs[job_id].state in FINAL_STATES):
            del self.jobs[job_id]

    def user(self, act: Callable[[JobRepository], object], *, allowed: bool) -> bool:
        try:
            with self.database.write() as session:
                act(JobRepository(session))
        except ForbiddenTransitionError:
            assert not allowed
            return False
        assert allowed
        return True

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        for job_id, job in self.jobs.items():
            row = get_job(self.database, job_id)
            assert (row.state, row.attempt, row.lost_attempts) == (job.state, job.attempt, job.lost)
            assert (row.lease_expires_at is not None) == job.is_held
            assert (row.worker_id is not None) == job.is_held
            assert (row.finished_at is not None) == (job.state in FINAL_STATES)
            assert row.cancel_requested == (job.state in {JobState.CANCELLING, JobState.CANCELLED})
        with self.database.read() as session:
            stored = {row.job_id: row.attempt for row in session.scalars(select(ResultTable))}
            assert session.scalar(select(func.count()).select_from(JobTable)) == len(self.jobs)
        assert stored == {job_id: job.results[-1] for job_id, job in self.jobs.items() if job.results}
        assert all(len(job.results) <= 1 for job in self.jobs.values())


def _release(repository: AttemptRepository, job_id: str, attempt: int) -> None:
    repository.release(job_id, attempt, "stopping")


@pytest.mark.slow
def test_jobs_live_as_the_model_says(database: Database) -> None:
    machine = type("BoundMachine", (JobMachine,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
