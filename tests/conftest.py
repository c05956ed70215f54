"""What every test may ask for: a migrated database of either kind, Redis, settings.

The servers are real. Where none can be had the test fails and names the command that installs one.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.db.engine import Database
from service.db.migrate import migrate
from service.settings import Settings
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption(
        "--kill-rounds", type=int, default=1, metavar="N", help="repeat each kill test N times (default 1)"
    )


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs under test: one started in the background of a script ignores it, children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat the tests that ask for `kill_round`."""
    if "kill_round" in metafunc.fixturenames:
        metafunc.parametrize("kill_round", range(metafunc.config.getoption("--kill-rounds")))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SAMA_") and name != "SAMA_REAL_DATA"]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The Postgres of this test run."""
    server = PostgresServer(os.environ.get("TEST_DATABASE_URL"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.make_database()
    migrate(Settings(database_url=SecretStr(postgres_server.url(name))))
    yield name
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data_dir=tmp_path_factory.mktemp("sqlite-template"))
    migrate(settings)
    return settings.data_dir / "sama.db"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, _postgres_template: str) -> Iterator[str]:
    """The URL of a fresh, migrated Postgres database."""
    name = postgres_server.make_database(_postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A new data directory, as the service would make it."""
    directory = tmp_path / "sama-data"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def sqlite_url(data_dir: Path, _sqlite_template: Path) -> str:
    """The URL of a fresh, migrated SQLite database, where settings without a URL would look for it."""
    shutil.copyfile(_sqlite_template, data_dir / "sama.db")
    return f"sqlite:///{data_dir / 'sama.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database: the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database: the test runs once on SQLite and once on Postgres."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def settings(database_url: str, data_dir: Path, tmp_path: Path) -> Settings:
    """Settings over the same database as `database`; data sets may lie anywhere under `tmp_path`."""
    return Settings(
        data_dir=data_dir,
        database_url=None if database_url.startswith("sqlite") else SecretStr(database_url),
        data_roots=(tmp_path,),
    )


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis of the test's own, to be flushed, killed and started again."""
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty Redis."""
    url = os.environ.get("TEST_REDIS_URL")
    if url is None:
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url
    from redis import Redis

    with Redis.from_url(url) as client:
        client.flushdb()
    return url
