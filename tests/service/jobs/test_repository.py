"""Jobs as users see them: add, list, cancel, resume, delete."""

import threading

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from service.attempts.repository import AttemptRepository
from service.attempts.state import MetricPoint
from service.db.base import Base
from service.db.engine import Database
from service.errors import ForbiddenTransitionError, NotFoundError
from service.jobs.repository import JobFilter, JobRepository, NewJob
from service.jobs.state import JobState
from service.jobs.tables import OutboxTable
from tests.service.attempts.factory import BROKEN, add_job, claim_one, complete, get_job, make_chunk


def new_job(**values: object) -> NewJob:
    fields = {"document": "{}", "document_digest": "sha256:0", "max_attempts": 3, "max_seconds": 60.0}
    return NewJob(**{**fields, **values})  # type: ignore[arg-type]


def add(database: Database, **values: object) -> str:
    with database.write() as session:
        return JobRepository(session).add(new_job(**values)).id


def test_a_job_its_labels_its_event_and_its_announcement_are_stored_together(database: Database) -> None:
    job_id = add(database, name="spam", labels={"team": "ads"})
    with database.read() as session:
        repository = JobRepository(session)
        job = repository.get(job_id)
        assert (job.name, job.state, job.attempt, job.progress) == ("spam", JobState.QUEUED, 0, 0.0)
        assert abs(job.created_at - job.queued_at) < 1
        assert repository.list_labels([job_id]) == {job_id: {"team": "ads"}}
        assert [event.message for event in repository.list_events(job_id)] == ["queued"]
        assert session.scalars(select(OutboxTable.job_id)).all() == [job_id]


def test_an_idempotency_key_is_stored_once(database: Database) -> None:
    job_id = add(database, idempotency_key="k")
    with pytest.raises(IntegrityError):
        add(database, idempotency_key="k")
    with database.read() as session:
        found = JobRepository(session).find_by_idempotency_key("k")
        assert found is not None and found.id == job_id
        assert JobRepository(session).find_by_idempotency_key("other") is None
        assert JobRepository(session).count_states() == {"queued": 1}


def test_jobs_are_listed_newest_first_in_pages(database: Database) -> None:
    job_ids = sorted((add_job(database) for _ in range(5)), reverse=True)
    with database.read() as session:
        repository = JobRepository(session)
        first = repository.list(JobFilter(), before_id=None, limit=3)
        second = repository.list(JobFilter(), before_id=first[-1].id, limit=3)
    assert [job.id for job in [*first, *second]] == job_ids


def test_jobs_are_filtered_by_state_name_and_every_label(database: Database) -> None:
    wanted = add(database, name="a", labels={"team": "ads", "tier": "1"})
    add(database, name="a", labels={"team": "ads"})
    add(database, name="b", labels={"team": "ads", "tier": "1"})
    with database.read() as session:
        repository = JobRepository(session)

        def ids(wanted_jobs: JobFilter) -> list[str]:
            return [job.id for job in repository.list(wanted_jobs, before_id=None, limit=10)]

        assert ids(JobFilter(name="a", labels={"team": "ads", "tier": "1"})) == [wanted]
        assert len(ids(JobFilter(states=["queued", "running"]))) == 3
        assert ids(JobFilter(states=["running"])) == []
        assert ids(JobFilter(labels={"team": "other"})) == []


def test_a_queue_position_counts_the_jobs_that_go_first(database: Database) -> None:
    first, second = add_job(database), add_job(database)
    urgent = add_job(database, priority=5)
    with database.read() as session:
        repository = JobRepository(session)
        ahead = {job_id: repository.count_ahead(repository.get(job_id)) for job_id in (first, second, urgent)}
    ordinary = sorted([first, second])
    assert (ahead[urgent], ahead[ordinary[0]], ahead[ordinary[1]]) == (0, 1, 2)


def test_a_job_that_does_not_exist_is_named(database: Database) -> None:
    with database.write() as session:
        repository = JobRepository(session)
        for act in (repository.get, repository.request_cancel, repository.resume, repository.delete):
            with pytest.raises(NotFoundError, match="There is no job 'job_none'"):
                act("job_none")


def test_a_queued_job_is_cancelled_at_once(database: Database) -> None:
    job_id = add_job(database)
    with database.write() as session:
        job = JobRepository(session).request_cancel(job_id)
    assert (job.state, job.cancel_requested) == (JobState.CANCELLED, True)
    assert job.finished_at is not None
    with database.write() as session:
        assert AttemptRepository(session).claim("w", 30) is None


def test_a_held_job_is_asked_to_stop_and_asking_twice_is_the_same(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    for _ in range(2):
        with database.write() as session:
            assert JobRepository(session).request_cancel(job_id).state == JobState.CANCELLING
    with database.write() as session:
        assert AttemptRepository(session).renew(job_id, attempt, 30, 0.0).cancel_requested
    with database.read() as session:
        messages = [event.message for event in JobRepository(session).list_events(job_id)]
    assert messages.count("cancel requested") == 1


def test_a_cancel_sees_a_job_that_was_given_back_meanwhile(postgres_url: str) -> None:
    """The cancel waits for the worker's transaction; it must then not ask a worker that is gone."""
    database = Database(postgres_url)
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    states: list[str] = []

    def cancel() -> None:
        with database.write() as session:
            states.append(JobRepository(session).request_cancel(job_id).state)

    thread = threading.Thread(target=cancel)
    with database.write() as session:
        AttemptRepository(session).release(job_id, attempt, "stopping")
        thread.start()
        thread.join(0.2)
        assert states == []
    thread.join(10)
    assert states == [JobState.CANCELLED]
    assert get_job(database, job_id).state == JobState.CANCELLED
    database.dispose()


@pytest.mark.parametrize("action", ["cancel", "resume"])
def test_a_job_that_succeeded_can_neither_be_cancelled_nor_resumed(database: Database, action: str) -> None:
    job_id = add_job(database)
    complete(database, job_id, claim_one(database).attempt)
    with (
        pytest.raises(ForbiddenTransitionError, match=rf"is succeeded; {action} needs a job that is"),
        database.write() as session,
    ):
        repository = JobRepository(session)
        (repository.request_cancel if action == "cancel" else repository.resume)(job_id)


def test_resuming_starts_the_limits_anew_and_keeps_the_checkpoint(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    with database.write() as session:
        repository = AttemptRepository(session)
        repository.set_checkpoint(job_id, attempt, "checkpoints/x", 7)
        repository.renew(job_id, attempt, 30, elapsed_seconds=50.0)
        repository.fail(job_id, attempt, BROKEN)
    with database.write() as session:
        JobRepository(session).resume(job_id)
    job = get_job(database, job_id)
    assert (job.state, job.lost_attempts, job.used_seconds, job.error_code) == (JobState.QUEUED, 0, 0.0, None)
    assert (job.checkpoint_path, job.attempt) == ("checkpoints/x", 1)
    assert claim_one(database).attempt == 2


def test_resuming_announces_the_job_again(database: Database) -> None:
    job_id = add_job(database)
    with database.write() as session:
        JobRepository(session).request_cancel(job_id)
    with database.write() as session:
        JobRepository(session).resume(job_id)
    with database.read() as session:
        assert job_id in session.scalars(select(OutboxTable.job_id)).all()


def test_deleting_takes_everything_that_belongs_to_the_job(database: Database) -> None:
    job_id = add(database, labels={"team": "ads"})
    attempt = claim_one(database).attempt
    with database.write() as session:
        repository = AttemptRepository(session)
        repository.record(job_id, attempt, metrics=[MetricPoint(1, 0.5)], events=[("note", "half")])
        repository.add_chunk(make_chunk(job_id, attempt))
    complete(database, job_id, attempt)
    with database.write() as session:
        JobRepository(session).delete(job_id)
    with database.read() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name == "job" or "job_id" in table.columns]
        left = {table.name: session.scalar(select(func.count()).select_from(table)) for table in tables}
    assert not any(left.values()), left


@pytest.mark.parametrize("held", [False, True])
def test_a_job_that_is_not_final_is_not_deleted(database: Database, held: bool) -> None:
    job_id = add_job(database)
    if held:
        claim_one(database)
    refusal = "delete needs a job that is succeeded or failed or cancelled"
    with pytest.raises(ForbiddenTransitionError, match=refusal), database.write() as session:
        JobRepository(session).delete(job_id)
    assert get_job(database, job_id).id == job_id


def test_metrics_are_replaced_step_by_step_and_dropped_after_a_step(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt

    def record(*points: MetricPoint) -> None:
        with database.write() as session:
            AttemptRepository(session).record(job_id, attempt, metrics=points)

    record(MetricPoint(1, 1.0), MetricPoint(2, 0.9), MetricPoint(3, 0.8))
    record(MetricPoint(2, 0.7))
    with database.write() as session:
        AttemptRepository(session).drop_metrics_after(job_id, attempt, 2)
    with database.read() as session:
        series = [(point.step, point.base_loss) for point in JobRepository(session).list_metrics(job_id)]
    assert series == [(1, 1.0), (2, 0.7)]


def test_events_are_read_on_from_any_of_them(database: Database) -> None:
    job_id = add_job(database)
    attempt = claim_one(database).attempt
    for number in range(3):
        with database.write() as session:
            AttemptRepository(session).record(job_id, attempt, events=[("note", f"note {number}")])
    with database.read() as session:
        repository = JobRepository(session)
        events = repository.list_events(job_id)
        ids = [event.id for event in events]
        assert ids == sorted(set(ids))
        assert [event.message for event in repository.list_events(job_id, after_id=ids[-2])] == ["note 2"]
        assert len(repository.list_events(job_id, limit=2)) == 2
