"""Two hundred jobs and unreliable workers on either database; and proof that the check sees what it should."""

from typing import Any

import pytest
from sqlalchemy import select, update

from service.attempts import repository as attempts
from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim
from service.db.base import db_now
from service.db.engine import Database
from service.jobs.repository import add_event
from service.jobs.state import JobState
from service.jobs.tables import JobTable
from tests.acceptance.claim_chaos import ClaimChaos, find_faults
from tests.service.attempts.factory import add_job

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

MANY = 10_000  # attempts: chaos shall not end a job


class UnconditionalRepository(AttemptRepository):
    """A mutant: its claim looks for a queued job, then takes it without asking whether it still is."""

    def claim(self, worker_id: str, lease_seconds: float) -> Claim | None:
        """Take a job that was queued a moment ago."""
        queued = select(JobTable.id).where(JobTable.state == JobState.QUEUED).order_by(JobTable.id).limit(1)
        job_id = self._session.scalar(queued)
        if job_id is None:
            return None
        values: dict[str, Any] = {"state": JobState.VALIDATING, "worker_id": worker_id}
        self._session.execute(
            update(JobTable)
            .where(JobTable.id == job_id)
            .values(attempt=JobTable.attempt + 1, lease_expires_at=db_now() + lease_seconds, **values)
        )
        job = self._session.get_one(JobTable, job_id, populate_existing=True)
        add_event(self._session, job_id, job.attempt, "state", f"attempt {job.attempt} claimed by worker {worker_id}")
        return Claim(job_id, job.attempt, job.document, job.max_seconds, 0.0, None, None)


def test_two_hundred_jobs_each_succeed_once(database: Database, kill_round: int) -> None:
    job_ids = [add_job(database, max_attempts=MANY) for _ in range(200)]
    ClaimChaos(database, seed=kill_round).run(job_ids)
    assert find_faults(database, job_ids) == []


def test_the_check_notices_a_missing_fence(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "fence", lambda job_id, _attempt: (JobTable.id == job_id,))
    job_ids = [add_job(database, max_attempts=MANY) for _ in range(40)]
    ClaimChaos(database, seed=1).run(job_ids)
    assert find_faults(database, job_ids), "jobs were completed by attempts that had lost them, and nobody noticed"


def test_the_check_notices_a_claim_without_its_condition(postgres_url: str) -> None:
    """On Postgres alone: SQLite lets only one transaction write at a time, so no claim there can be overtaken."""
    database = Database(postgres_url)
    job_ids = [add_job(database, max_attempts=MANY) for _ in range(40)]
    ClaimChaos(database, seed=1, repository=UnconditionalRepository).run(job_ids)
    assert find_faults(database, job_ids), "jobs were claimed by two workers at once, and nobody noticed"
    database.dispose()
