"""Jobs on two devices under real workers: whatever is killed, the job goes on and nothing is left running."""

import os
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import Deploy
from tests.acceptance.deployment import Deployment, make_document

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two cores make two devices; this machine has one"),
]


def find_rank(deployment: Deployment, job_id: str) -> psutil.Process:
    """Return the process beside the attempt, once a checkpoint of their work is in force."""
    deployment.wait_for("a checkpoint", lambda: deployment.get(job_id).checkpoint_step is not None)
    (attempt,) = deployment.find_attempts(job_id)
    (rank,) = attempt.children()
    assert "worker.rank" in rank.cmdline()
    return rank


@pytest.mark.parametrize("whom", ["rank", "attempt", "worker"])
def test_a_killed_process_costs_one_attempt(whom: str, deploy: Deploy, table_folder: Path) -> None:
    deployment = deploy("embedded", lease_seconds=8.0, progress_seconds=0.5)
    job_id = deployment.submit(
        {**make_document(table_folder, epochs=60, with_evaluation=False), "resources": {"devices": 2}}
    )
    worker = deployment.start_worker()
    rank = find_rank(deployment, job_id)
    (attempt,) = deployment.find_attempts(job_id)
    psutil.Process({"rank": rank.pid, "attempt": attempt.pid, "worker": worker.pid}[whom]).kill()
    deployment.wait_for("the others' end", lambda: not rank.is_running() and not attempt.is_running(), seconds=30)
    if whom == "worker":
        deployment.start_worker()
    assert deployment.wait_for_state(job_id) == "succeeded", deployment.read_log()
    messages = deployment.list_messages(job_id)
    assert deployment.get(job_id).attempt == 2, deployment.read_log() + "\n".join(messages)
    assert messages.count("training on 2 devices") == 2
    assert any(message.startswith("resumed from step") for message in messages)
