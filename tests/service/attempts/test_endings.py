"""How attempts end: completed, released, failed, cancelled, swept."""

import pytest
from sqlalchemy import func, select

from service.attempts.repository import AttemptRepository
from service.attempts.state import Failure
from service.db.engine import Database
from service.errors import StaleAttemptError
from service.jobs.outbox import OutboxRepository
from service.jobs.repository import JobRepository
from service.jobs.state import JobState, Phase
from service.jobs.tables import JobTable, OutboxTable
from service.results.tables import ResultTable
from tests.service.attempts.factory import (
    BROKEN,
    LOST,
    add_job,
    claim,
    claim_one,
    complete,
    expire_lease,
    get_job,
    make_chunk,
    make_result,
)


def fail(database: Database, job_id: str, attempt: int, failure: Failure) -> JobState:
    with database.write() as session:
        return AttemptRepository(session).fail(job_id, attempt, failure)


def test_completion_ends_the_lease_and_shows_the_result_with_it(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    with database.write() as session:
        AttemptRepository(session).add_chunk(make_chunk(job_id, attempt))
    complete(database, job_id, attempt)
    job = get_job(database, job_id)
    assert (job.state, job.result_attempt, job.progress) == (JobState.SUCCEEDED, attempt, 1.0)
    assert (job.lease_expires_at, job.worker_id) == (None, None)
    assert job.finished_at is not None
    with database.read() as session:
        assert session.scalars(select(ResultTable.manifest)).all() == [{"by": attempt}]
        assert AttemptRepository(session).is_final(job_id, attempt)


def test_a_failed_transaction_of_completion_leaves_nothing_visible(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt

    class PowerCutError(Exception):
        pass

    with pytest.raises(PowerCutError), database.write() as session:
        AttemptRepository(session).complete(make_result(job_id, attempt), [])
        session.flush()
        raise PowerCutError
    assert get_job(database, job_id).state == JobState.VALIDATING
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(ResultTable)) == 0


def test_a_release_queues_again_without_counting(database: Database) -> None:
    job_id = add_job(database, max_attempts=1)
    for _ in range(3):
        attempt = claim_one(database).attempt
        with database.write() as session:
            AttemptRepository(session).release(job_id, attempt, "its worker is shutting down")
    job = get_job(database, job_id)
    assert (job.state, job.attempt, job.lost_attempts, job.worker_id) == (JobState.QUEUED, 3, 0, None)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(OutboxTable)) == 1


def test_lost_attempts_are_tried_again_up_to_the_limit(database: Database) -> None:
    job_id = add_job(database, max_attempts=2)
    assert fail(database, job_id, claim_one(database).attempt, LOST) == JobState.QUEUED
    assert get_job(database, job_id).error_code is None
    assert fail(database, job_id, claim_one(database).attempt, LOST) == JobState.FAILED
    job = get_job(database, job_id)
    assert (job.error_code, job.error_message, job.error_hint) == ("worker_lost", LOST.message, LOST.hint)
    assert claim(database) is None
    with database.read() as session:
        messages = [event.message for event in JobRepository(session).list_events(job_id)]
    assert "queued again after attempt 1 ended (1 of 2 lost): The worker went away." in messages


def test_a_failure_that_would_come_again_is_final_at_once(database: Database) -> None:
    job_id = add_job(database)
    assert fail(database, job_id, claim_one(database).attempt, BROKEN) == JobState.FAILED
    assert get_job(database, job_id).error_code == "bad_data"


def test_a_failure_under_a_cancel_is_a_cancel(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    with database.write() as session:
        JobRepository(session).request_cancel(job_id)
    assert fail(database, job_id, attempt, LOST) == JobState.CANCELLED
    assert get_job(database, job_id).error_code is None


def test_nothing_succeeds_once_a_cancel_was_answered(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    with database.write() as session:
        JobRepository(session).request_cancel(job_id)
    with pytest.raises(StaleAttemptError):
        complete(database, job_id, attempt)
    with database.write() as session:
        AttemptRepository(session).cancel(job_id, attempt)
    assert get_job(database, job_id).state == JobState.CANCELLED


def test_entering_a_phase_moves_the_state_but_not_out_of_a_cancel(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt

    def enter(phase: Phase) -> str:
        with database.write() as session:
            AttemptRepository(session).enter_phase(job_id, attempt, phase, phase)
        job = get_job(database, job_id)
        assert job.phase == phase
        return job.state

    assert [enter(phase) for phase in (Phase.VALIDATING, Phase.READING, Phase.TRAINING, Phase.SCORING)] == [
        "validating", "running", "running", "running",
    ]  # fmt: skip
    assert enter(Phase.EVALUATING) == "evaluating"
    assert enter(Phase.STORING) == "evaluating"
    with database.write() as session:
        JobRepository(session).request_cancel(job_id)
    assert enter(Phase.EVALUATING) == "cancelling"


def test_only_leases_that_ran_out_are_swept(database: Database) -> None:
    expired, alive = add_job(database), add_job(database)
    claims = [claim_one(database, "w1"), claim_one(database, "w2")]
    expire_lease(database, expired)
    with database.write() as session:
        leases = AttemptRepository(session).list_expired()
    assert [(lease.job_id, lease.attempt, lease.worker_id) for lease in leases] == [(expired, 1, "w1")]
    assert {taken.job_id for taken in claims} == {expired, alive}


def test_a_renewed_lease_is_not_swept(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    expire_lease(database, job_id)
    with database.write() as session:
        status = AttemptRepository(session).renew(job_id, attempt, 30, elapsed_seconds=2.0)
    assert (status.cancel_requested, status.used_seconds) == (False, 2.0)
    with database.write() as session:
        assert AttemptRepository(session).list_expired() == []


def test_two_sweeps_at_once_do_not_end_an_attempt_twice(postgres_url: str) -> None:
    database = Database(postgres_url)
    job_id = add_job(database)
    claim_one(database)
    expire_lease(database, job_id)
    with database.write() as first, database.write() as second:
        assert len(AttemptRepository(first).list_expired()) == 1
        assert AttemptRepository(second).list_expired() == []
    database.dispose()


def test_a_claim_does_not_wait_for_a_job_that_another_transaction_has_locked(postgres_url: str) -> None:
    database = Database(postgres_url)
    locked, free = add_job(database), add_job(database)
    with database.write() as other:
        other.get(JobTable, locked, with_for_update=True)
        assert claim_one(database).job_id == free
    database.dispose()


def test_announcements_are_gone_only_when_the_transaction_commits(database: Database) -> None:
    job_id = add_job(database)

    class BrokerAwayError(Exception):
        pass

    with pytest.raises(BrokerAwayError), database.write() as session:
        assert OutboxRepository(session).take(10) == [job_id]
        raise BrokerAwayError
    with database.write() as session:
        assert not OutboxRepository(session).is_empty()
        assert OutboxRepository(session).take(10) == [job_id]
    with database.write() as session:
        assert OutboxRepository(session).is_empty()
        assert OutboxRepository(session).take(10) == []


def test_announcements_are_taken_oldest_first_and_in_portions(database: Database) -> None:
    job_ids = [add_job(database) for _ in range(3)]
    with database.write() as session:
        assert OutboxRepository(session).take(2) == job_ids[:2]
    with database.write() as session:
        assert OutboxRepository(session).take(2) == job_ids[2:]
        assert OutboxRepository(session).count_queued() == 3
