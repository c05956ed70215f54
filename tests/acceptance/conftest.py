"""Installations of either kind, and what an uninterrupted job gives."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from service.db.migrate import migrate
from service.settings import Settings
from tests.acceptance.deployment import Deployment, make_document, write_table

# Short enough for tests, long enough for a machine that is busy with others.
PACE: dict[str, Any] = {
    "lease_seconds": 3.0,
    "poll_seconds": 0.1,
    "sweep_seconds": 0.5,
    "stop_grace_seconds": 15.0,
    "checkpoint_seconds": 0.5,
    "progress_seconds": 0.05,
    "device": "cpu",
    "num_threads": 1,
}

Deploy = Callable[..., Deployment]


@pytest.fixture(scope="session")
def table_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small table that every job here curates."""
    folder = tmp_path_factory.mktemp("table")
    write_table(folder / "table.csv")
    return folder


@pytest.fixture(scope="session")
def document(table_folder: Path) -> dict[str, Any]:
    """A job of a second or two, with every phase in it."""
    return make_document(table_folder)


@pytest.fixture(scope="session")
def longer_document(table_folder: Path) -> dict[str, Any]:
    """A job that trains for several leases even on a fast machine, without an evaluation."""
    return make_document(table_folder, epochs=400, with_evaluation=False)


@pytest.fixture(scope="session")
def endless_document(table_folder: Path) -> dict[str, Any]:
    """A job that trains for longer than any test waits."""
    return make_document(table_folder, epochs=10_000, with_evaluation=False)


@pytest.fixture
def deploy(request: pytest.FixtureRequest, tmp_path: Path, data_dir: Path, table_folder: Path) -> Iterator[Deploy]:
    """Make installations: `embedded` (SQLite, polling) or `production` (Postgres, Redis, Celery)."""
    with ExitStack() as stack:

        def make(kind: str, **changes: Any) -> Deployment:
            values: dict[str, Any] = {"data_dir": data_dir, "data_roots": (table_folder,), **PACE}
            if kind == "production":
                values["database_url"] = SecretStr(request.getfixturevalue("postgres_url"))
                values["broker_url"] = SecretStr(request.getfixturevalue("redis_url"))
            else:
                request.getfixturevalue("sqlite_url")
            return stack.enter_context(Deployment(Settings(**{**values, **changes}), tmp_path))

        yield make


@pytest.fixture(scope="session")
def run_undisturbed(tmp_path_factory: pytest.TempPathFactory, table_folder: Path) -> Callable[[dict[str, Any]], bytes]:
    """Return `rows.parquet` of a document whose job nobody disturbed; each document is run once."""
    known: dict[str, bytes] = {}

    def run(wanted: dict[str, Any]) -> bytes:
        if repr(wanted) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            settings = Settings(data_dir=folder / "sama-data", data_roots=(table_folder,), **PACE)
            migrate(settings)
            with Deployment(settings, folder) as deployment:
                job_id = deployment.submit(wanted)
                deployment.start_worker()
                assert deployment.wait_for_state(job_id) == "succeeded"
                assert deployment.get(job_id).attempt == 1
                known[repr(wanted)] = deployment.read_rows(job_id)
        return known[repr(wanted)]

    return run
