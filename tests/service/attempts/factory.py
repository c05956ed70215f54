"""Jobs, claims and results made for tests of the job table."""

from sqlalchemy import update

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim, Failure
from service.db.base import db_now
from service.db.engine import Database
from service.jobs.repository import JobRepository, NewJob
from service.jobs.tables import JobTable
from service.results.tables import ChunkTable, ResultTable

LOST = Failure("worker_lost", "The worker went away.", "Wait.", retryable=True)
BROKEN = Failure("bad_data", "Row 3 cannot be read.", "Mend it.")


def add_job(database: Database, *, max_attempts: int = 3, max_seconds: float = 60.0, priority: int = 0) -> str:
    """Queue a job and return its id."""
    new = NewJob(document="{}", document_digest="sha256:0", max_attempts=max_attempts, max_seconds=max_seconds)
    with database.write() as session:
        job_id = JobRepository(session).add(new).id
        session.execute(update(JobTable).where(JobTable.id == job_id).values(priority=priority))
    return job_id


def get_job(database: Database, job_id: str) -> JobTable:
    """Return the job's row as it is now."""
    with database.read() as session:
        return JobRepository(session).get(job_id)


def claim(database: Database, worker_id: str = "w1", lease_seconds: float = 30.0) -> Claim | None:
    """Claim the next job."""
    with database.write() as session:
        return AttemptRepository(session).claim(worker_id, lease_seconds)


def claim_one(database: Database, worker_id: str = "w1", lease_seconds: float = 30.0) -> Claim:
    """Claim the next job, which must be there."""
    taken = claim(database, worker_id, lease_seconds)
    assert taken is not None
    return taken


def expire_lease(database: Database, job_id: str) -> None:
    """Let the lease have run out a second ago, by the database's clock."""
    with database.write() as session:
        session.execute(update(JobTable).where(JobTable.id == job_id).values(lease_expires_at=db_now() - 1.0))


def make_chunk(job_id: str, attempt: int, index: int = 0) -> ChunkTable:
    """Return a chunk of one row that says which attempt wrote it."""
    data = f"attempt {attempt}".encode()
    return ChunkTable(
        job_id=job_id, attempt=attempt, index=index, row_start=index, num_rows=1, sha256="0" * 64, data=data
    )


def make_result(job_id: str, attempt: int) -> ResultTable:
    """Return a result that says which attempt made it."""
    return ResultTable(
        job_id=job_id, attempt=attempt, num_rows=1, num_labelled=1, num_kept=1, summary={}, manifest={"by": attempt}
    )


def complete(database: Database, job_id: str, attempt: int) -> None:
    """End the attempt with success."""
    with database.write() as session:
        AttemptRepository(session).complete(make_result(job_id, attempt), [])
