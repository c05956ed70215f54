"""The API holds what its own description says, under generated requests."""

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks
from starlette.testclient import TestClient

from service.db.engine import Database
from tests.service.seeding import finish_job

load_all_checks()
_CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


@pytest.mark.slow
def test_generated_requests_get_described_answers(app: FastAPI, client: TestClient, database: Database) -> None:
    job_id = finish_job(database)
    headers = {"Authorization": client.headers["authorization"], "Host": "localhost"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    checks = [CHECKS.get_one(name) for name in _CHECKS]
    seen: set[tuple[str, int]] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in {"/readyz", "/v1/jobs/{job_id}/events"}:
            continue  # no worker is alive here, and a stream of a queued job does not end

        @settings(
            max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def send(case: Any) -> None:
            if "job_id" in case.path_parameters and case.operation.method.upper() == "GET":
                case.path_parameters["job_id"] = job_id
            answer = case.call(headers=headers)
            seen.add((case.operation.path, answer.status_code))
            case.validate_response(answer, checks=checks)

        given(case=operation.as_strategy())(send)()
    assert {status for _, status in seen} >= {200, 404, 422}
