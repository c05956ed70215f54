"""The API: `python -m service.main` serves it, `create_app` makes it."""

import argparse
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.auth.endpoints import router as auth_router
from service.auth.guard import AccessGuard
from service.auth.keys import load_api_key
from service.auth.links import AccessService
from service.dashboard.pages import create_router as create_dashboard_router
from service.db.engine import create_database
from service.db.migrate import migrate
from service.exception_handlers import add_exception_handlers
from service.health.checks import ReadinessService
from service.health.endpoints import router as health_router
from service.health.metrics import JobCollector, RequestMetrics
from service.jobs.endpoints import router as job_router
from service.jobs.event_stream import router as event_router
from service.jobs.service import JobService
from service.logging import configure_logging, get_logger
from service.openapi import describe_api
from service.requests import RequestGuard
from service.results.endpoints import router as result_router
from service.results.files import EXPORTS, ExportStore
from service.results.service import ResultService
from service.settings import Settings

API_VERSION = "1"
_GRACE_SECONDS = 5


def create_app(settings: Settings) -> FastAPI:
    """Return the application over the database and the data directory that the settings name."""
    database = create_database(settings)
    api_key = load_api_key(settings)
    registry = CollectorRegistry()

    @asynccontextmanager
    async def run_lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if database.is_sqlite:
            migrate(settings)
        ExportStore(settings.data_dir / EXPORTS).remove_leftovers()
        yield
        database.dispose()

    app = FastAPI(
        title="Sama",
        version=API_VERSION,
        description="Which training examples to keep, how much each should count, and which labels are wrong.",
        lifespan=run_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.access = AccessService(database, api_key)
    app.state.jobs = JobService(database, settings)
    app.state.results = ResultService(database, settings)
    app.state.readiness = ReadinessService(database, settings)
    app.state.registry = registry
    app.state.is_stopping = lambda: False
    metrics = RequestMetrics(registry)
    registry.register(JobCollector(database, settings.lease_seconds))
    for router in (health_router, auth_router, job_router, event_router, result_router, create_dashboard_router()):
        app.include_router(router)
    add_exception_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(AccessGuard, access=app.state.access, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(RequestGuard, metrics=metrics)
    app.openapi = partial(describe_api, app)  # type: ignore[method-assign]
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the API on the address of the settings, or on a unix socket."""
    parser = argparse.ArgumentParser(prog="python -m service.main", description="Serve the API and the dashboard.")
    parser.add_argument("--uds", type=Path, metavar="PATH", help="listen on this unix socket instead")
    options = parser.parse_args(arguments)
    settings = Settings()
    configure_logging(settings, "api")
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    # Streams of events last as long as their jobs; they must see that the server wants to stop.
    app.state.is_stopping = lambda: server.should_exit
    # The server ends in good order on both signals and then raises them again for whoever waits here.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        if options.uds is None:
            get_logger(__name__).info("serving", host=settings.host, port=settings.port)
            server.run()
        else:
            get_logger(__name__).info("serving on a unix socket")
            _serve_socket(server, options.uds)


def _serve_socket(server: uvicorn.Server, path: Path) -> None:
    """Serve on a unix socket that its owner alone may open."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        try:
            server.run(sockets=[listener])
        finally:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
