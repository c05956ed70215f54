"""Stopping in good order: shutting down, cancelling, running out of time."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.attempts.workers import WorkerRepository
from service.jobs.repository import JobRepository
from tests.acceptance.conftest import Deploy
from tests.acceptance.deployment import Deployment

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

PROMPT_SECONDS = 12.0  # "within seconds", with room for a machine that is busy


def cancel(deployment: Deployment, job_id: str) -> None:
    with deployment.database.write() as session:
        JobRepository(session).request_cancel(job_id)


def wait_for_training(deployment: Deployment, job_id: str) -> None:
    deployment.wait_for("a checkpoint", lambda: deployment.get(job_id).checkpoint_step is not None)


@pytest.mark.parametrize("kind", ["embedded", "production"])
def test_a_worker_shut_down_gives_its_job_back_with_a_checkpoint(
    kind: str, deploy: Deploy, longer_document: dict[str, Any], run_undisturbed: Callable[[dict[str, Any]], bytes]
) -> None:
    undisturbed = run_undisturbed(longer_document)
    deployment = deploy(kind)
    job_id = deployment.submit(longer_document, max_attempts=1)
    worker = deployment.start_worker()
    wait_for_training(deployment, job_id)
    asked_at = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert time.monotonic() - asked_at < PROMPT_SECONDS
    job = deployment.get(job_id)
    assert (job.state, job.lost_attempts, job.worker_id) == ("queued", 0, None)
    assert job.used_seconds > 0
    assert "queued again: its worker is shutting down" in deployment.list_messages(job_id)
    assert not deployment.find_attempts(job_id)
    deployment.start_worker()
    assert deployment.wait_for_state(job_id) == "succeeded"
    assert f"resumed from step {job.checkpoint_step} (training)" in deployment.list_messages(job_id)
    assert deployment.read_rows(job_id) == undisturbed


def test_a_queued_job_is_cancelled_and_never_begins(deploy: Deploy, document: dict[str, Any]) -> None:
    deployment = deploy("embedded")
    cancelled, other = deployment.submit(document), deployment.submit(document)
    cancel(deployment, cancelled)
    deployment.start_worker()
    assert deployment.wait_for_state(other) == "succeeded"
    job = deployment.get(cancelled)
    assert (job.state, job.attempt) == ("cancelled", 0)


@pytest.mark.parametrize("kind", ["embedded", "production"])
def test_a_running_job_is_cancelled_within_seconds_and_can_be_resumed(
    kind: str, deploy: Deploy, endless_document: dict[str, Any]
) -> None:
    deployment = deploy(kind, lease_seconds=30.0)  # a cancel is seen long before the next heartbeat
    job_id = deployment.submit(endless_document)
    worker = deployment.start_worker()
    wait_for_training(deployment, job_id)
    asked_at = time.monotonic()
    cancel(deployment, job_id)
    assert deployment.wait_for_state(job_id) == "cancelled"
    assert time.monotonic() - asked_at < PROMPT_SECONDS
    assert not deployment.find_attempts(job_id)
    step = deployment.get(job_id).checkpoint_step
    with deployment.database.write() as session:
        JobRepository(session).resume(job_id)
    deployment.wait_for_state(job_id, ["running"])
    deployment.wait_for(
        "the resume", lambda: f"resumed from step {step} (training)" in deployment.list_messages(job_id)
    )
    assert worker.poll() is None


def test_an_attempt_that_does_not_stop_is_killed_after_its_grace(
    deploy: Deploy, endless_document: dict[str, Any]
) -> None:
    deployment = deploy("embedded", stop_grace_seconds=1.0)
    job_id = deployment.submit(endless_document)
    deployment.start_worker()
    wait_for_training(deployment, job_id)
    (attempt,) = deployment.find_attempts(job_id)
    attempt.suspend()  # hears nothing, does nothing
    cancel(deployment, job_id)
    assert deployment.wait_for_state(job_id) == "cancelled"
    assert not attempt.is_running()


def test_a_job_that_runs_out_of_time_fails(deploy: Deploy, endless_document: dict[str, Any]) -> None:
    deployment = deploy("embedded", stop_grace_seconds=1.0)
    job_id = deployment.submit(endless_document, max_seconds=8)
    worker = deployment.start_worker()
    deployment.wait_for("the attempt", lambda: bool(deployment.find_attempts(job_id)))
    deployment.find_attempts(job_id)[0].suspend()  # left alone it would find a schedule that fits
    assert deployment.wait_for_state(job_id) == "failed"
    job = deployment.get(job_id)
    assert (job.error_code, job.attempt, job.lost_attempts) == ("time_limit", 1, 1)
    assert job.error_hint is not None and "limits.max_seconds" in job.error_hint
    assert 8 <= job.used_seconds < 8 + PROMPT_SECONDS
    assert not deployment.find_attempts(job_id)
    assert worker.poll() is None


def test_the_worker_never_loads_torch_and_is_forgotten_when_it_leaves(
    deploy: Deploy, endless_document: dict[str, Any]
) -> None:
    deployment = deploy("embedded")
    job_id = deployment.submit(endless_document)
    worker = deployment.start_worker()
    wait_for_training(deployment, job_id)
    (attempt,) = deployment.find_attempts(job_id)
    assert "libtorch" in Path(f"/proc/{attempt.pid}/maps").read_text()
    assert "libtorch" not in Path(f"/proc/{worker.pid}/maps").read_text()

    def list_workers() -> list[tuple[int, str | None]]:
        with deployment.database.read() as session:
            alive = WorkerRepository(session).list_alive(silent_seconds=10)
            return [(row.process_id, row.job_id) for row in alive]

    deployment.wait_for("the heartbeat", lambda: list_workers() == [(worker.pid, job_id)])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert list_workers() == []
