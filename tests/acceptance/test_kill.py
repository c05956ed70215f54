"""Workers and attempts killed with SIGKILL in every phase: the job goes on and gives the same bytes.

`pytest tests/acceptance/test_kill.py --kill-rounds 20` does it twenty times.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Deploy
from tests.acceptance.deployment import Deployment

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

# One in each phase: at its beginning where nothing is counted in it, else amid its work.
MOMENTS = ["validating:0", "reading:0", "training:20", "scoring:0", "evaluating:30", "storing:1"]
PATIENT = {"max_attempts": len(MOMENTS) + 4}


def check_outcome(deployment: Deployment, job_id: str, undisturbed: bytes) -> None:
    assert deployment.wait_for_state(job_id) == "succeeded"
    messages = deployment.list_messages(job_id)
    assert all(deployment.was_struck(moment) for moment in MOMENTS)
    assert deployment.get(job_id).attempt >= len(MOMENTS) + 1
    assert messages.count("succeeded") == 1
    assert any(message.startswith("resumed from step") for message in messages)
    assert deployment.read_rows(job_id) == undisturbed
    assert not list((deployment.settings.data_dir / "checkpoints").glob("*")), (
        "checkpoints of a finished job stay behind"
    )


@pytest.mark.parametrize("kind", ["embedded", "production"])
def test_a_worker_killed_in_every_phase(
    kind: str,
    deploy: Deploy,
    document: dict[str, Any],
    run_undisturbed: Callable[[dict[str, Any]], bytes],
    kill_round: int,
) -> None:
    undisturbed = run_undisturbed(document)
    deployment = deploy(kind, checkpoint_seconds=0.05)
    job_id = deployment.submit(document, **PATIENT)
    for moment in MOMENTS:
        worker = deployment.start_worker(kill_at=moment)
        deployment.wait_for(f"the kill at {moment}", lambda worker=worker: worker.poll() is not None)
        assert worker.returncode == -9, deployment.read_log()
    deployment.start_worker()
    check_outcome(deployment, job_id, undisturbed)


def test_only_the_attempt_killed_in_every_phase(
    deploy: Deploy, document: dict[str, Any], run_undisturbed: Callable[[dict[str, Any]], bytes], kill_round: int
) -> None:
    undisturbed = run_undisturbed(document)
    deployment = deploy("embedded", checkpoint_seconds=0.05)
    job_id = deployment.submit(document, **PATIENT)
    worker = deployment.start_worker(kill_at=" ".join(MOMENTS), kill_whom="attempt")
    check_outcome(deployment, job_id, undisturbed)
    assert worker.poll() is None


def test_attempts_that_keep_dying_come_to_an_end(deploy: Deploy, document: dict[str, Any]) -> None:
    deployment = deploy("embedded")
    job_id = deployment.submit(document, max_attempts=2)
    deployment.start_worker(kill_at="validating:0 reading:0", kill_whom="attempt")
    assert deployment.wait_for_state(job_id) == "failed"
    job = deployment.get(job_id)
    assert (job.attempt, job.error_code) == (2, "worker_lost")
    assert job.error_message is not None and "ended without a word" in job.error_message
