"""Claiming: the right job, once, with a growing fencing token."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from service.attempts.repository import AttemptRepository
from service.db.engine import Database
from service.jobs.repository import JobRepository
from service.jobs.state import JobState
from service.jobs.tables import OutboxTable
from tests.service.attempts.factory import LOST, add_job, claim, claim_one, complete, get_job


def test_nothing_queued_gives_nothing(database: Database) -> None:
    assert claim(database) is None


def test_a_claim_takes_the_oldest_job_of_the_highest_priority(database: Database) -> None:
    ordinary = [add_job(database), add_job(database)]
    urgent = add_job(database, priority=1)
    taken = [claim_one(database).job_id for _ in range(3)]
    assert taken[0] == urgent
    assert taken[1:] == sorted(ordinary)
    assert claim(database) is None


def test_a_claim_says_who_holds_the_job_and_until_when(database: Database) -> None:
    job_id = add_job(database, max_seconds=60)
    taken = claim_one(database, "w7", lease_seconds=30)
    job = get_job(database, job_id)
    assert (taken.job_id, taken.attempt, taken.max_seconds, taken.used_seconds) == (job_id, 1, 60, 0)
    assert (job.state, job.attempt, job.worker_id) == (JobState.VALIDATING, 1, "w7")
    assert job.validating_at is not None and job.lease_expires_at is not None
    assert 29.9 < job.lease_expires_at - job.validating_at < 30.1
    with database.read() as session:
        messages = [event.message for event in JobRepository(session).list_events(job_id)]
    assert messages == ["queued", "attempt 1 claimed by worker w7"]


def test_a_claim_makes_the_unsent_announcement_obsolete(database: Database) -> None:
    add_job(database)
    claim_one(database)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(OutboxTable)) == 0


def test_each_claim_of_a_job_carries_a_higher_token(database: Database) -> None:
    add_job(database, max_attempts=10)
    for expected in (1, 2, 3):
        taken = claim_one(database)
        assert taken.attempt == expected
        with database.write() as session:
            AttemptRepository(session).fail(taken.job_id, taken.attempt, LOST)


def test_a_resumed_claim_carries_the_checkpoint_and_the_time_used(database: Database) -> None:
    add_job(database)
    first = claim_one(database)
    with database.write() as session:
        repository = AttemptRepository(session)
        repository.set_checkpoint(first.job_id, first.attempt, "checkpoints/a/1/40", 40)
        repository.renew(first.job_id, first.attempt, 30, elapsed_seconds=12.5)
        repository.release(first.job_id, first.attempt, "the worker is shutting down")
    second = claim_one(database)
    assert (second.checkpoint_path, second.checkpoint_step) == ("checkpoints/a/1/40", 40)
    assert second.used_seconds == 12.5


def test_many_workers_at_once_never_take_the_same_job(database: Database) -> None:
    job_ids = [add_job(database) for _ in range(30)]
    start = threading.Barrier(6)

    def take_until_empty(worker: int) -> list[str]:
        start.wait()
        taken: list[str] = []
        while (one := claim(database, f"w{worker}")) is not None:
            taken.append(one.job_id)
        return taken

    with ThreadPoolExecutor(6) as pool:
        taken = [job_id for jobs in pool.map(take_until_empty, range(6)) for job_id in jobs]
    assert sorted(taken) == sorted(job_ids)


def test_a_finished_job_is_not_claimed_again(database: Database) -> None:
    job_id = add_job(database)
    complete(database, job_id, claim_one(database).attempt)
    assert claim(database) is None
    assert get_job(database, job_id).state == JobState.SUCCEEDED
