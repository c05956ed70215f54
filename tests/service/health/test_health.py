"""Liveness, readiness and metrics, with real parts that are really away."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.attempts.tables import WorkerTable
from service.attempts.workers import WorkerRepository
from service.db.engine import Database
from service.health.checks import ReadinessService
from service.settings import Settings
from tests.service.seeding import add_job, finish_job


def _beat(database: Database, job_id: str | None = None) -> None:
    with database.write() as session:
        worker = WorkerTable(id="w1", hostname="h", process_id=1, device="cpu", job_id=job_id)
        WorkerRepository(session).beat(worker)


def test_health_is_open_and_asks_nobody(stranger: TestClient) -> None:
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_once_a_worker_was_seen(client: TestClient, database: Database) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_ready"
    assert answer.json()["detail"] == "No worker was heard of within 30 seconds."
    assert [problem["param"] for problem in answer.json()["problems"]] == ["worker"]
    _beat(database)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "checks": dict.fromkeys(["database", "queue", "storage", "worker"], "ok"),
    }


def test_the_queue_is_asked(database: Database, settings: Settings, redis_url: str) -> None:
    there = settings.model_copy(update={"broker_url": SecretStr(redis_url)})
    checks = {check.name: check for check in ReadinessService(database, there).check()}
    assert checks["queue"].is_ok
    away = settings.model_copy(update={"broker_url": SecretStr("redis://:secret@127.0.0.1:1/0")})
    checks = {check.name: check for check in ReadinessService(database, away).check()}
    assert checks["queue"].message == "The queue (SAMA_BROKER_URL) does not answer."


def test_every_fault_is_named(tmp_path: Path) -> None:
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    settings = Settings(data_dir=tmp_path / "missing")
    checks = {check.name: check for check in ReadinessService(away, settings).check()}
    assert {name for name, check in checks.items() if not check.is_ok} == {"database", "storage", "worker"}
    assert checks["storage"].message == "The data directory cannot be written to."
    assert "does not answer" in checks["database"].message
    away.dispose()


def test_an_unmigrated_database_is_not_ready(settings: Settings) -> None:
    empty = Database("sqlite://")
    checks = {check.name: check for check in ReadinessService(empty, settings).check()}
    assert "its schema is missing (run: sama migrate)" in checks["database"].message
    empty.dispose()


def test_metrics(client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    add_job(database)
    _beat(database, job_id)
    client.get(f"/v1/jobs/{job_id}")
    client.get("/v1/nothing")
    client.request("BREW", "/v1/jobs")
    text = client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['sama_jobs{state="succeeded"}'] == "1.0"
    assert lines['sama_jobs{state="queued"}'] == "1.0"
    assert lines['sama_jobs{state="failed"}'] == "0.0"
    assert lines["sama_queue_depth"] == "1.0"
    assert lines["sama_workers_alive"] == "1.0"
    assert lines["sama_workers_busy"] == "1.0"
    assert lines['sama_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"}'] == "1.0"
    assert lines['sama_http_requests_total{method="GET",route="unmatched",status="404"}'] == "1.0"
    assert 'method="BREW"' not in text
    assert job_id not in text
    assert lines['sama_http_request_seconds_count{method="GET",route="/v1/jobs/{job_id}"}'] == "1.0"


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_a_database_that_is_away_is_said_to_be_so(path: str, tmp_path: Path) -> None:
    from service.auth.keys import load_api_key
    from service.main import create_app

    url = SecretStr("postgresql+psycopg://nobody:hunter2@127.0.0.1:1/none")
    settings = Settings(data_dir=tmp_path, database_url=url)
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {load_api_key(settings).get_secret_value()}"}
    client = TestClient(app, base_url="http://localhost", headers=headers)
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.json()["code"] == {"/readyz": "not_ready", "/metrics": "database_unavailable"}[path]
    assert "hunter2" not in answer.text
    assert "psycopg" not in answer.text
    client.close()
    app.state.database.dispose()
