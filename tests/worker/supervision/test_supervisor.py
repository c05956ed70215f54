"""What the supervisor does with an attempt, whatever the attempt does."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from service.attempts.repository import AttemptRepository
from service.db.engine import Database
from service.jobs.repository import JobRepository
from service.jobs.state import JobState, Phase
from service.settings import Settings
from tests.service.attempts.factory import LOST, add_job, claim_one, complete, get_job
from tests.worker.supervision.conftest import Supervise, SupervisedAttempt
from worker.child import make_command
from worker.supervisor import AttemptSupervisor


def get_last_message(database: Database, job_id: str) -> str:
    with database.read() as session:
        return JobRepository(session).list_events(job_id)[-1].message


def test_a_stop_gives_the_job_back_and_books_the_time(database: Database, supervise: Supervise) -> None:
    job_id = add_job(database)
    attempt = supervise("stops when told")
    attempt.wait_until_ready()
    attempt.supervisor.stop()
    attempt.wait_until_over()
    job = get_job(database, job_id)
    assert (job.state, job.lost_attempts) == (JobState.QUEUED, 0)
    assert 0 < job.used_seconds < 20
    assert get_last_message(database, job_id) == "queued again: its worker is shutting down"


def test_a_stop_gives_the_job_back_even_of_an_attempt_that_must_be_killed(
    database: Database, supervise: Supervise
) -> None:
    job_id = add_job(database)
    attempt = supervise("hears nothing")
    attempt.wait_until_ready()
    attempt.supervisor.stop()
    attempt.wait_until_over()
    assert (get_job(database, job_id).state, get_job(database, job_id).lost_attempts) == (JobState.QUEUED, 0)


@pytest.mark.parametrize("program", ["stops when told", "hears nothing"])
def test_a_cancel_ends_the_attempt(database: Database, supervise: Supervise, program: str) -> None:
    job_id = add_job(database)
    attempt = supervise(program)
    attempt.wait_until_ready()
    with database.write() as session:
        JobRepository(session).request_cancel(job_id)
    attempt.wait_until_over()
    job = get_job(database, job_id)
    assert (job.state, job.error_code) == (JobState.CANCELLED, None)


def test_the_lease_is_renewed_as_long_as_the_attempt_runs(
    database: Database, supervise: Supervise, quick: Settings
) -> None:
    job_id = add_job(database)
    attempt = supervise("stops when told")
    attempt.wait_until_ready()
    begun = time.monotonic()
    expiries = set()
    while time.monotonic() - begun < 2 * quick.lease_seconds:
        job = get_job(database, job_id)
        assert job.state == JobState.VALIDATING
        expiries.add(job.lease_expires_at)
        time.sleep(0.05)
    assert len(expiries) >= 3
    assert get_job(database, job_id).used_seconds > quick.lease_seconds
    with database.write() as session:
        assert AttemptRepository(session).list_expired() == []


@pytest.mark.parametrize("program", ["stops when told", "hears nothing"])
def test_an_attempt_out_of_time_fails(database: Database, supervise: Supervise, program: str) -> None:
    job_id = add_job(database, max_seconds=1.0)
    supervise(program).wait_until_over()
    job = get_job(database, job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "time_limit")
    assert job.used_seconds >= 1.0
    assert job.error_message == (
        "The job used up its time limit before its training could start: start-up and reading took 1.0 s of 1 s."
    )


@pytest.mark.parametrize(("phase", "is_before"), [(Phase.READING, True), (Phase.TRAINING, False)])
def test_time_that_went_by_before_the_training_is_told_apart(
    database: Database, quick: Settings, monkeypatch: pytest.MonkeyPatch, phase: Phase, is_before: bool
) -> None:
    monkeypatch.setattr("worker.supervisor.make_command", lambda *_: ["sleep", "60"])
    job_id = add_job(database, max_seconds=0.5)
    claim, claimed_at = claim_one(database), time.monotonic()
    with database.write() as session:
        AttemptRepository(session).enter_phase(job_id, claim.attempt, phase, "as an attempt does")
    AttemptSupervisor(database, quick, claim, claimed_at).run()
    message = get_job(database, job_id).error_message
    assert message is not None
    assert ("before its training could start" in message) == is_before


def test_an_attempt_is_told_when_its_time_ends_its_own_start_included(
    database: Database, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, float]] = []
    monkeypatch.setattr("worker.supervisor.make_command", lambda *args: told.append(args) or ["true"])
    job_id = add_job(database, max_seconds=50)
    claim, claimed_at = claim_one(database), time.monotonic()
    AttemptSupervisor(database, quick, claim, claimed_at).run()
    assert told[0][:2] == (job_id, claim.attempt)
    assert claimed_at + 50 <= told[0][2] <= time.monotonic() + 50
    assert make_command(*told[0])[-1] == f"{told[0][2]:.3f}"


def test_a_job_that_has_no_time_left_is_not_even_started(
    database: Database, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.supervisor.make_command", lambda *_: pytest.fail("started"))
    job_id = add_job(database, max_seconds=5)
    first = claim_one(database)
    with database.write() as session:
        repository = AttemptRepository(session)
        repository.renew(job_id, first.attempt, 30, elapsed_seconds=5.0)
        repository.fail(job_id, first.attempt, LOST)
    claimed_at = time.monotonic()
    AttemptSupervisor(database, quick, claim_one(database), claimed_at).run()
    assert get_job(database, job_id).error_code == "time_limit"


@pytest.mark.parametrize("program", ["says it is done", "fails without a word", "crashes", "is killed"])
def test_an_attempt_that_ends_without_a_word_is_tried_again(
    database: Database, supervise: Supervise, program: str
) -> None:
    job_id = add_job(database)
    supervise(program).wait_until_over()
    job = get_job(database, job_id)
    assert (job.state, job.lost_attempts) == (JobState.QUEUED, 1)
    assert "queued again after attempt 1 ended (1 of 3 lost)" in get_last_message(database, job_id)


def test_an_attempt_that_was_told_to_stop_by_others_is_given_back(database: Database, supervise: Supervise) -> None:
    job_id = add_job(database)
    supervise("stops by itself").wait_until_over()
    assert get_last_message(database, job_id) == "queued again: its attempt was told to stop"
    assert get_job(database, job_id).lost_attempts == 0


@pytest.mark.parametrize(
    ("counts", "code"), [([5, 6], "out_of_memory"), ([5, 5], "worker_lost"), ([None], "worker_lost")]
)
def test_a_kill_is_for_memory_only_where_the_kernel_says_so(
    database: Database,
    supervise: Supervise,
    monkeypatch: pytest.MonkeyPatch,
    counts: list[int | None],
    code: str,
) -> None:
    answers = iter(counts)
    monkeypatch.setattr("worker.supervisor.count_memory_kills", lambda: next(answers))
    job_id = add_job(database, max_attempts=1)
    supervise("is killed").wait_until_over()
    assert get_job(database, job_id).error_code == code


def test_a_process_that_cannot_be_started_loses_the_attempt(
    database: Database, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.supervisor.make_command", lambda *_: ["/no/such/program"])
    job_id = add_job(database)
    claimed_at = time.monotonic()
    AttemptSupervisor(database, quick, claim_one(database), claimed_at).run()
    assert (get_job(database, job_id).state, get_job(database, job_id).lost_attempts) == (JobState.QUEUED, 1)


def test_an_attempt_that_lost_its_job_is_killed_and_nothing_is_written(
    database: Database, supervise: Supervise
) -> None:
    job_id = add_job(database)
    attempt = supervise("hears nothing")
    attempt.wait_until_ready()
    with database.write() as session:  # as the sweep and another worker would
        repository = AttemptRepository(session)
        repository.fail(job_id, attempt.claim.attempt, LOST)
        assert repository.claim("w2", 30) is not None
    attempt.wait_until_over()
    job = get_job(database, job_id)
    assert (job.state, job.attempt, job.worker_id, job.lost_attempts) == (JobState.VALIDATING, 2, "w2", 1)
    assert get_last_message(database, job_id) == "attempt 2 claimed by worker w2"


def test_an_attempt_that_lingers_after_its_job_has_ended_is_killed_after_the_grace(
    database: Database, supervise: Supervise
) -> None:
    job_id = add_job(database)
    attempt = supervise("hears nothing")
    attempt.wait_until_ready()
    complete(database, job_id, attempt.claim.attempt)
    attempt.wait_until_over()
    assert get_job(database, job_id).state == JobState.SUCCEEDED


def test_everything_that_an_attempt_started_is_killed_with_it(
    database: Database, supervise: Supervise, tmp_path: Path
) -> None:
    add_job(database)
    attempt = supervise("leaves a child")
    attempt.wait_until_ready()
    child_file = tmp_path / "ready.child"
    while not child_file.exists() or not child_file.read_text():
        time.sleep(0.01)
    child = psutil.Process(int(child_file.read_text()))
    attempt.supervisor.stop()
    attempt.wait_until_over()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_what_an_attempt_writes_is_passed_on_without_secrets(
    database: Database, supervise: Supervise, capfd: pytest.CaptureFixture[str]
) -> None:
    add_job(database)
    supervise("talks").wait_until_over()
    written = capfd.readouterr().err
    assert "postgresql://sama:***@host/db is where I write" in written
    assert "to error" in written
    assert "hidden" not in written


def test_without_the_database_the_attempt_is_killed_before_its_lease_is_over_and_given_back_later(
    database: Database,
    supervise: Supervise,
    outage: Callable[[], AbstractContextManager[None]],
    quick: Settings,
) -> None:
    job_id = add_job(database)
    attempt = supervise("hears nothing")
    attempt.wait_until_ready()
    with outage():
        process = find_process(attempt)
        begun = time.monotonic()
        process.wait(10)
        assert time.monotonic() - begun < quick.lease_seconds, "the attempt outlived its lease"
    attempt.wait_until_over()
    job = get_job(database, job_id)
    assert (job.state, job.lost_attempts) == (JobState.QUEUED, 0)
    assert get_last_message(database, job_id) == "queued again: its worker could not reach the database"


def find_process(attempt: SupervisedAttempt) -> psutil.Process:
    """Return the process of the attempt: the only child of this one that was given its file."""
    children = psutil.Process().children()
    return next(child for child in children if attempt.ready_path in child.cmdline())
