"""Redis forgets, dies and comes back; messages come twice or never. No job is lost and none runs twice."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Deploy
from tests.acceptance.deployment import Deployment
from tests.servers.redis import RedisServer
from worker.celery_app import QUEUE, CeleryHintQueue, make_app

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

NEVER = 600.0  # seconds: longer than any test
WAKE_SECONDS = 15.0


def do_nothing() -> None:
    raise AssertionError("the test's own Celery application consumes nothing")


def send_hints(server: RedisServer, number: int) -> None:
    hints = CeleryHintQueue(make_app(server.url, do_nothing))
    for _ in range(number):
        hints.send()


def count_hints(server: RedisServer) -> int:
    with server.connect() as client:
        return int(client.llen(QUEUE))


def wait_for_claim(deployment: Deployment, job_id: str, seconds: float) -> None:
    deployment.wait_for("a claim", lambda: deployment.get(job_id).attempt > 0, seconds)


def test_a_message_delivered_many_times_runs_a_job_once(
    deploy: Deploy,
    redis_server: RedisServer,
    document: dict[str, Any],
    run_undisturbed: Callable[[dict[str, Any]], bytes],
) -> None:
    undisturbed = run_undisturbed(document)
    deployment = deploy("production")
    job_id = deployment.submit(document)
    send_hints(redis_server, 5)
    deployment.start_worker()
    deployment.start_worker()
    assert deployment.wait_for_state(job_id) == "succeeded"
    send_hints(redis_server, 2)
    deployment.wait_for("the last message to be taken", lambda: count_hints(redis_server) == 0)
    messages = deployment.list_messages(job_id)
    assert len([message for message in messages if "claimed by worker" in message]) == 1
    assert messages.count("succeeded") == 1
    assert deployment.read_rows(job_id) == undisturbed


def test_a_message_wakes_a_worker_at_once(deploy: Deploy, document: dict[str, Any]) -> None:
    """With the safety nets out of the way, so that only the message can have done it."""
    deployment = deploy("production", sweep_seconds=NEVER)
    deployment.start_worker()
    deployment.wait_for("the worker to be ready", lambda: " ready." in deployment.read_log())
    submitted_at = time.monotonic()
    job_id = deployment.submit(document)
    wait_for_claim(deployment, job_id, WAKE_SECONDS)
    assert time.monotonic() - submitted_at < 5.0


@pytest.mark.parametrize("fault", ["flushed", "restarted"])
def test_redis_goes_mid_job_and_nothing_is_lost(
    fault: str,
    deploy: Deploy,
    redis_server: RedisServer,
    longer_document: dict[str, Any],
    document: dict[str, Any],
    run_undisturbed: Callable[[dict[str, Any]], bytes],
) -> None:
    undisturbed = run_undisturbed(longer_document)
    deployment = deploy("production")
    running = deployment.submit(longer_document)
    deployment.start_worker()
    deployment.wait_for_phase(running, "training")
    waiting = deployment.submit(document)
    deployment.wait_for_phase(running, "training")
    if fault == "flushed":
        redis_server.flush()
    else:
        redis_server.kill()
        redis_server.start()
    assert deployment.wait_for_state(running) == "succeeded"
    assert deployment.wait_for_state(waiting) == "succeeded"
    assert [deployment.get(job_id).attempt for job_id in (running, waiting)] == [1, 1]
    assert deployment.read_rows(running) == undisturbed


@pytest.mark.parametrize("fault", ["flushed", "restarted"])
def test_the_consumer_comes_back_by_itself(
    fault: str, deploy: Deploy, redis_server: RedisServer, document: dict[str, Any]
) -> None:
    """With the safety nets out of the way, so that only the consumer can have done it."""
    deployment = deploy("production", sweep_seconds=NEVER)
    deployment.start_worker()
    deployment.wait_for("the worker to be ready", lambda: " ready." in deployment.read_log())
    if fault == "flushed":
        redis_server.flush()
    else:
        redis_server.kill()
        redis_server.start()
    job_id = deployment.submit(document)
    wait_for_claim(deployment, job_id, 60)
    assert deployment.wait_for_state(job_id) == "succeeded"


def test_jobs_run_while_redis_stays_away(deploy: Deploy, redis_server: RedisServer, document: dict[str, Any]) -> None:
    deployment = deploy("production")
    redis_server.kill()
    deployment.start_worker()
    first = deployment.submit(document)
    assert deployment.wait_for_state(first) == "succeeded"


def test_hints_that_redis_lost_are_sent_again(
    deploy: Deploy, redis_server: RedisServer, document: dict[str, Any], endless_document: dict[str, Any]
) -> None:
    """One worker is busy and sends hints again; the other is idle and looks only when it is told to."""
    deployment = deploy("production")
    busy = deployment.submit(endless_document)
    deployment.start_worker()
    deployment.wait_for_phase(busy, "training")
    waiting = deployment.submit(document)
    deployment.wait_for("the hint", lambda: count_hints(redis_server) > 0)
    redis_server.flush()
    deployment.start("worker", SAMA_SWEEP_SECONDS=str(NEVER))
    assert deployment.wait_for_state(waiting) == "succeeded"
    assert deployment.get(busy).attempt == 1
