"""A server process with finished and waiting jobs, and a client of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.client.client import Client
from service.db.engine import Database, create_database
from service.db.migrate import migrate
from service.settings import Settings
from tests.client.server import ApiServer
from tests.page.seeding import Seeder


@dataclass(frozen=True)
class SeededServer:
    """A server, its database, and the ids of the jobs in it."""

    api: ApiServer
    database: Database
    succeeded: str
    queued: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeededServer]:
    """One server for the tests of a module; jobs that a test changes it makes itself."""
    data_dir: Path = tmp_path_factory.mktemp("data")
    settings = Settings(data_dir=data_dir)
    migrate(settings)
    database = create_database(settings)
    seeder = Seeder(database)
    succeeded = seeder.succeed("digits", labels={"team": "vision"})
    queued = seeder.queue("waiting", {"team": "ads"})
    api = ApiServer(data_dir, {"SAMA_DATA_ROOTS": str(data_dir)})
    yield SeededServer(api, database, succeeded, queued)
    api.stop()
    database.dispose()


@pytest.fixture
def client(server: SeededServer) -> Iterator[Client]:
    """A client with the key."""
    with Client(server.api.url, server.api.api_key) as client:
        yield client
