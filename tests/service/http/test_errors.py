"""What every answer has in common, failures above all: a code, an id, headers - and no secret of the server."""

import ast
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.db.engine import Database
from service.exception_handlers import STATUS_OF_CODE
from service.jobs.service import JobService
from tests.service.seeding import add_job

SERVICE = Path(__file__).parents[3] / "service"
# Raised by the command line, the client and at start, where no request is answered.
NOT_OVER_HTTP = {"weak_api_key", "invalid_api_key_file"}
EDGES = ("cli", "client")
# Faults of data are gathered into an inspection report or fail the attempt: they reach HTTP as problems alone.
GATHERED = ("storage",)


def _list_codes() -> set[str]:
    codes: set[str] = set()
    for path in SERVICE.rglob("*.py"):
        if path.relative_to(SERVICE).parts[0] in (*EDGES, *GATHERED):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
            if is_call and isinstance(node.args[0].value, str):  # type: ignore[union-attr]
                name = ast.unparse(node.func)  # type: ignore[union-attr]
                if name.endswith("ServiceError") or name == "super().__init__":
                    codes.add(node.args[0].value)  # type: ignore[union-attr]
    return codes


def test_every_code_has_a_status() -> None:
    codes = _list_codes()
    assert {"invalid_document", "results_not_ready", "unauthorized"} <= codes
    assert codes - NOT_OVER_HTTP <= set(STATUS_OF_CODE)


def test_a_failure_says_nothing_of_itself(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_self: JobService, job_id: str) -> None:
        raise RuntimeError(f"SELECT secret FROM /var/lib WHERE {job_id}")

    monkeypatch.setattr(JobService, "get", fail)
    answer = client.get("/v1/jobs/job_1", headers={"X-Request-ID": "my-id.1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["request_id"]) == ("internal_error", "my-id.1")
    assert "SELECT" not in answer.text
    assert "Traceback" not in answer.text
    logged = capsys.readouterr().out
    assert "SELECT secret" in logged  # whoever runs the server finds it under the same id
    assert "my-id.1" in logged


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a\u00e9"])
def test_a_strange_request_id_is_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": given.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{24}", answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/v1/nothing", "/login", "/"])
def test_security_headers_stand_on_every_answer(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_requests_are_logged_without_secrets(
    client: TestClient, stranger: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    token = client.post("/v1/login-links").json()["url"].partition("token=")[2]
    stranger.get(f"/login?token={token}")
    logged = capsys.readouterr().out
    assert "path=/login " in logged
    assert "path=/v1/login-links" in logged
    assert token not in logged
    assert client.headers["authorization"].removeprefix("Bearer ") not in logged


def test_the_api_says_what_it_is(app: FastAPI, client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    assert {"JobDocument", "ProblemDocument", "Job", "Summary", "ExamplePage"} <= set(schemas)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', client.get("/openapi.json").text))
    assert references <= set(schemas)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"], path
            assert operation["description"]
    for route in ("/v1/jobs", "/v1/jobs/{job_id}/manifest", "/v1/jobs/{job_id}/bundle", "/readyz", "/metrics"):
        assert route in document["paths"]


def test_strange_text_in_a_path_does_no_harm(client: TestClient, database: Database) -> None:
    job_id = add_job(database)
    for path in ("/v1/jobs/%27%3B--", "/v1/jobs/%F0%9F%98%80", f"/v1/jobs/{job_id}%00", "/jobs/%00", "/v1/jobs/%ff"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
