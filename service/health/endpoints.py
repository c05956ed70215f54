"""Liveness, readiness and metrics."""

from typing import Literal

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from service.errors import Problem, ServiceError
from service.health.checks import ReadinessService

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Every part works."""

    status: Literal["ready"] = "ready"
    checks: dict[str, str]


@router.get("/healthz")
def get_health() -> Health:
    """Answer, without touching anything else: the process is alive."""
    return Health()


@router.get("/readyz")
def get_readiness(request: Request) -> Readiness:
    """Say whether database, queue and storage work and a worker was seen; 503 with every fault where not."""
    service: ReadinessService = request.app.state.readiness
    checks = service.check()
    faults = [check for check in checks if not check.is_ok]
    if faults:
        raise ServiceError(
            "not_ready",
            " ".join(check.message for check in faults),
            param=faults[0].name,
            problems=[Problem(check.name, "not ready", "ready", check.message) for check in faults],
        )
    return Readiness(checks={check.name: check.message for check in checks})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(request: Request) -> Response:
    """Return jobs by state, queue depth, workers alive, and request counts and times for Prometheus."""
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
