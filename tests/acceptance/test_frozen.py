"""A worker frozen past its lease and woken again finds that its job is another's, and writes nothing."""

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from service.jobs.repository import JobRepository
from tests.acceptance.conftest import Deploy

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.mark.parametrize("whom", ["worker and attempt", "worker alone"])
def test_a_frozen_worker_woken_past_its_lease_is_refused(
    whom: str, deploy: Deploy, longer_document: dict[str, Any], run_undisturbed: Callable[[dict[str, Any]], bytes]
) -> None:
    undisturbed = run_undisturbed(longer_document)
    deployment = deploy("production")
    job_id = deployment.submit(longer_document)
    frozen = deployment.start_worker()
    deployment.wait_for("a checkpoint", lambda: deployment.get(job_id).checkpoint_step is not None)
    (attempt,) = deployment.find_attempts(job_id)
    frozen.send_signal(signal.SIGSTOP)
    if whom == "worker and attempt":
        attempt.suspend()
    deployment.start_worker()
    deployment.wait_for("another worker to take the job", lambda: deployment.get(job_id).attempt == 2)
    deployment.wait_for_phase(job_id, "training")
    if attempt.is_running():
        attempt.resume()
    frozen.send_signal(signal.SIGCONT)
    assert deployment.wait_for_state(job_id) == "succeeded"
    deployment.wait_for("the stale attempt's end", lambda: not attempt.is_running())
    assert frozen.poll() is None, "the worker itself lives on"
    assert deployment.get(job_id).result_attempt == 2
    assert deployment.read_rows(job_id) == undisturbed
    with deployment.database.read() as session:
        attempts = [event.attempt for event in JobRepository(session).list_events(job_id)]
    assert attempts == sorted(attempts), "the first attempt has written after the second began"


def test_a_frozen_attempt_does_not_stop_the_other_writers_of_an_sqlite_file(
    deploy: Deploy, endless_document: dict[str, Any]
) -> None:
    deployment = deploy("embedded")
    job_id = deployment.submit(endless_document)
    frozen = deployment.start_worker()
    deployment.wait_for("a checkpoint", lambda: deployment.get(job_id).checkpoint_step is not None)
    (attempt,) = deployment.find_attempts(job_id)
    frozen.send_signal(signal.SIGSTOP)
    attempt.suspend()
    deployment.start_worker()
    deployment.wait_for("another worker to take the job", lambda: deployment.get(job_id).attempt == 2)
    # Whoever takes over a job on SQLite ends the process that held it; its frozen parent cannot collect it yet.
    # A signal takes a moment to arrive.
    deployment.wait_for("the frozen attempt's end", lambda: attempt.status() == psutil.STATUS_ZOMBIE)
    frozen.send_signal(signal.SIGCONT)
    deployment.wait_for_phase(job_id, "training")
    assert deployment.get(job_id).attempt == 2
