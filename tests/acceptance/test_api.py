"""The API's process killed and started again mid-job: what it answered still holds, and the job does not notice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.auth.keys import load_api_key
from tests.acceptance.conftest import Deploy
from tests.acceptance.deployment import Deployment
from tests.servers.child import make_server_directory

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.fixture
def socket_path() -> Path:
    """A path short enough for a unix socket."""
    return make_server_directory("sama-api", None) / "api.sock"


def connect(deployment: Deployment, socket_path: Path) -> httpx.Client:
    """Return a client of the API, once it answers."""
    key = load_api_key(deployment.settings).get_secret_value()
    client = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket_path)),
        base_url="http://localhost",
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )

    def answers() -> bool:
        try:
            return client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    deployment.wait_for("the API to answer", answers)
    return client


@pytest.mark.parametrize("kind", ["embedded", "production"])
def test_the_api_killed_and_started_again_mid_job(
    kind: str,
    deploy: Deploy,
    socket_path: Path,
    longer_document: dict[str, Any],
    run_undisturbed: Callable[[dict[str, Any]], bytes],
) -> None:
    undisturbed = run_undisturbed(longer_document)
    deployment = deploy(kind)
    api = deployment.start("service.main", "--uds", str(socket_path))
    deployment.start_worker()
    with connect(deployment, socket_path) as client:
        answer = client.post("/v1/jobs", json=longer_document, headers={"Idempotency-Key": "once"})
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        deployment.wait_for_phase(job_id, "training")
    api.kill()
    api.wait()
    assert deployment.get(job_id).state == "running"
    deployment.start("service.main", "--uds", str(socket_path))
    with connect(deployment, socket_path) as client:
        again = client.post("/v1/jobs", json=longer_document, headers={"Idempotency-Key": "once"})
        assert again.json()["id"] == job_id, "the second start has forgotten what the first accepted"
        assert deployment.wait_for_state(job_id) == "succeeded"
        shown = client.get(f"/v1/jobs/{job_id}").json()
        assert (shown["state"], shown["attempt"]) == ("succeeded", 1)
        rows = client.get(f"/v1/jobs/{job_id}/manifest", params={"format": "parquet"})
        assert rows.content == undisturbed
