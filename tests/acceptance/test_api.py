"""The API's process killed and started again mid-job: what it answered still holds, and the job does not notice."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from service.auth.keys import load_api_key
from tests.acceptance.conftest import Deploy
from tests.acceptance.deployment import Deployment

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def connect(deployment: Deployment) -> Iterator[httpx.Client]:
    """Give a client of the API, once it answers."""
    key = load_api_key(deployment.settings).get_secret_value()
    url = f"http://127.0.0.1:{deployment.settings.port}"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:

        def answers() -> bool:
            try:
                return client.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        deployment.wait_for("the API to answer", answers)
        yield client


@pytest.mark.parametrize("kind", ["embedded", "production"])
def test_the_api_killed_and_started_again_mid_job(
    kind: str,
    deploy: Deploy,
    port: int,
    longer_document: dict[str, Any],
    run_undisturbed: Callable[[dict[str, Any]], bytes],
) -> None:
    undisturbed = run_undisturbed(longer_document)
    deployment = deploy(kind, port=port)
    api = deployment.start("service.main")
    deployment.start_worker()
    with connect(deployment) as client:
        answer = client.post("/v1/jobs", json=longer_document, headers={"Idempotency-Key": "once"})
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        deployment.wait_for_phase(job_id, "training")
    api.kill()
    api.wait()
    assert deployment.get(job_id).state == "running"
    deployment.start("service.main")
    with connect(deployment) as client:
        again = client.post("/v1/jobs", json=longer_document, headers={"Idempotency-Key": "once"})
        assert again.json()["id"] == job_id, "the second start has forgotten what the first accepted"
        assert deployment.wait_for_state(job_id) == "succeeded"
        shown = client.get(f"/v1/jobs/{job_id}").json()
        assert (shown["state"], shown["attempt"]) == ("succeeded", 1)
        rows = client.get(f"/v1/jobs/{job_id}/manifest", params={"format": "parquet"})
        assert rows.content == undisturbed
