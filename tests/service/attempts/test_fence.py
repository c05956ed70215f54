"""The fence: every write of an attempt that no longer holds its job is refused and leaves nothing behind."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from service.attempts import repository as attempts
from service.attempts.repository import AttemptRepository
from service.attempts.state import MetricPoint, Progress
from service.db.base import Base
from service.db.engine import Database
from service.errors import StaleAttemptError
from service.jobs.state import Phase
from service.jobs.tables import EventTable, JobTable, MetricTable, OutboxTable
from service.results.tables import ChunkTable, ResultTable
from tests.service.attempts.factory import (
    LOST,
    add_job,
    claim_one,
    complete,
    expire_lease,
    make_chunk,
    make_result,
)

Write = Callable[[AttemptRepository, str, int], Any]

# Every public method by which an attempt writes. `test_the_list_of_writes_is_complete` keeps it so.
WRITES: dict[str, Write] = {
    "hold": lambda r, j, a: r.hold(j, a, progress=0.5),
    "renew": lambda r, j, a: r.renew(j, a, 30, 1.0),
    "enter_phase": lambda r, j, a: r.enter_phase(j, a, Phase.TRAINING, "training begins"),
    "record": lambda r, j, a: r.record(j, a, progress=Progress(0.5), metrics=[MetricPoint(1)], events=[("note", "x")]),
    "drop_metrics_after": lambda r, j, a: r.drop_metrics_after(j, a, 0),
    "set_checkpoint": lambda r, j, a: r.set_checkpoint(j, a, "elsewhere", 9),
    "add_chunk": lambda r, j, a: r.add_chunk(make_chunk(j, a)),
    "complete": lambda r, j, a: r.complete(make_result(j, a), []),
    "release": lambda r, j, a: r.release(j, a, "stopping"),
    "cancel": lambda r, j, a: r.cancel(j, a),
    "fail": lambda r, j, a: r.fail(j, a, LOST),
}
READS = {"claim", "get_claim", "get_lease", "is_final", "list_expired"}


def test_the_list_of_writes_is_complete() -> None:
    public = {name for name in vars(AttemptRepository) if not name.startswith("_")}
    assert public == set(WRITES) | READS


def lose_lease(database: Database) -> tuple[str, int]:
    """Let a second attempt take the job of a first one; return the first."""
    job_id = add_job(database)
    first = claim_one(database, "w1")
    expire_lease(database, job_id)
    with database.write() as session:
        repository = AttemptRepository(session)
        for lease in repository.list_expired():
            repository.fail(lease.job_id, lease.attempt, LOST)
    assert claim_one(database, "w2").attempt == first.attempt + 1
    return job_id, first.attempt


def read_everything(database: Database) -> list[Any]:
    with database.read() as session:
        tables = (JobTable, EventTable, MetricTable, OutboxTable, ChunkTable, ResultTable)
        return [session.execute(select(Base.metadata.tables[t.__tablename__])).all() for t in tables]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_stale_attempts_write_is_refused_whole(database: Database, write: Write) -> None:
    job_id, stale = lose_lease(database)
    before = read_everything(database)
    refusal = rf"Attempt {stale} no longer holds job {job_id}"
    with pytest.raises(StaleAttemptError, match=refusal), database.write() as session:
        write(AttemptRepository(session), job_id, stale)
    assert read_everything(database) == before


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_the_holder_may_write(database: Database, write: Write) -> None:
    """The control of the refusals: each of these writes does change something where the fence lets it."""
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    with database.write() as session:
        AttemptRepository(session).record(job_id, attempt, metrics=[MetricPoint(5)])
    before = read_everything(database)
    with database.write() as session:
        write(AttemptRepository(session), job_id, attempt)
    assert read_everything(database) != before


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_nothing_is_written_to_a_job_that_has_ended(database: Database, write: Write) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    complete(database, job_id, attempt)
    before = read_everything(database)
    with pytest.raises(StaleAttemptError), database.write() as session:
        write(AttemptRepository(session), job_id, attempt)
    assert read_everything(database) == before


def test_reading_a_claim_and_a_lease_is_refused_to_a_stale_attempt(database: Database) -> None:
    job_id, stale = lose_lease(database)
    with database.read() as session:
        repository = AttemptRepository(session)
        assert repository.get_claim(job_id, stale + 1).job_id == job_id
        assert repository.get_lease(job_id, stale + 1).cancel_requested is False
        for read in (repository.get_claim, repository.get_lease):
            with pytest.raises(StaleAttemptError):
                read(job_id, stale)


def run_twice(database: Database) -> list[int]:
    """Run one job by two workers, the first frozen past its lease; return the attempts that could complete it."""
    job_id, stale = lose_lease(database)
    completed = []
    for attempt in (stale, stale + 1):
        try:
            with database.write() as session:
                AttemptRepository(session).add_chunk(make_chunk(job_id, attempt))
            complete(database, job_id, attempt)
        except StaleAttemptError:
            continue
        completed.append(attempt)
    return completed


def test_a_job_run_by_two_workers_is_completed_by_one(database: Database) -> None:
    assert run_twice(database) == [2]
    with database.read() as session:
        assert session.scalars(select(ChunkTable.data)).all() == [b"attempt 2"]
        assert session.scalars(select(ResultTable.attempt)).all() == [2]


def test_the_double_run_is_noticed_without_the_fence(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: if this passed with the fence gone, the test above would prove nothing."""
    monkeypatch.setattr(attempts, "fence", lambda job_id, _attempt: (JobTable.id == job_id,))
    assert run_twice(database) == [1, 2]


def test_chunks_of_attempts_that_ended_badly_are_gone(database: Database) -> None:
    job_id = add_job(database)
    for _ in range(2):
        attempt = claim_one(database).attempt
        with database.write() as session:
            repository = AttemptRepository(session)
            repository.add_chunk(make_chunk(job_id, attempt))
        with database.write() as session:
            AttemptRepository(session).fail(job_id, attempt, LOST)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(ChunkTable)) == 0
