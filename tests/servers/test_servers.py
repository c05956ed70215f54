"""The servers of the tests are what they claim to be."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import inspect, text

from service.db.engine import Database
from service.settings import Settings
from tests.servers import binaries
from tests.servers.redis import RedisServer


def test_a_fresh_database_is_migrated_and_empty(database: Database) -> None:
    assert {"job", "outbox", "result", "worker", "alembic_version"} <= set(inspect(database.engine).get_table_names())
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM job")) == 0


@pytest.mark.parametrize("value", ["one", "two"])
def test_tests_do_not_see_each_others_rows(database: Database, value: str) -> None:
    with database.write() as session:
        session.execute(text("INSERT INTO worker VALUES (:id, 'h', 1, 'cpu', NULL, 0, 0, NULL)"), {"id": value})
    with database.read() as session:
        assert session.scalars(text("SELECT id FROM worker")).all() == [value]


def test_settings_name_the_same_database(settings: Settings, database_url: str) -> None:
    assert settings.resolved_database_url == database_url


def test_redis_forgets_when_flushed_and_when_killed(redis_server: RedisServer) -> None:
    with redis_server.connect() as client:
        client.set("a", "1")
        redis_server.flush()
        assert client.get("a") is None
        client.set("a", "1")
        redis_server.kill()
        with pytest.raises(RedisConnectionError):
            client.get("a")
        redis_server.start()
        assert client.get("a") is None


def test_a_missing_server_fails_with_the_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries.shutil, "which", lambda _name: None)
    monkeypatch.setattr(binaries, "_inside_package", lambda _package, _pattern: [])
    with pytest.raises(pytest.fail.Exception, match=r"apt-get install -y .* redis-server"):
        binaries.find_redis()
