"""Announcements on a real Redis: sent once the job is stored, kept while Redis is away, repeated when it forgets."""

import json

import pytest
from kombu.exceptions import OperationalError

from service.db.engine import Database
from service.jobs.outbox import OutboxRepository
from tests.servers.redis import RedisServer
from tests.service.attempts.factory import add_job, claim_one
from worker.announcer import Announcer
from worker.celery_app import CeleryHintQueue, make_app


@pytest.fixture
def hints(redis_server: RedisServer) -> CeleryHintQueue:
    return CeleryHintQueue(make_app(redis_server.url, lambda: None))


def is_outbox_empty(database: Database) -> bool:
    with database.read() as session:
        return OutboxRepository(session).is_empty()


def test_each_new_job_is_announced_once(database: Database, hints: CeleryHintQueue) -> None:
    for _ in range(3):
        add_job(database)
    announcer = Announcer(database, hints)
    announcer.send_new()
    announcer.send_new()
    assert hints.count() == 3
    assert is_outbox_empty(database)


def test_announcements_wait_while_redis_is_away(
    database: Database, hints: CeleryHintQueue, redis_server: RedisServer
) -> None:
    add_job(database)
    announcer = Announcer(database, hints)
    redis_server.kill()
    with pytest.raises(OperationalError):
        announcer.send_new()
    assert not is_outbox_empty(database)
    redis_server.start()
    announcer.send_new()
    assert hints.count() == 1
    assert is_outbox_empty(database)


@pytest.mark.parametrize("num_jobs", [1, 3])
def test_announcements_that_redis_forgot_are_repeated(
    database: Database, hints: CeleryHintQueue, redis_server: RedisServer, num_jobs: int
) -> None:
    for _ in range(num_jobs):
        add_job(database)
    announcer = Announcer(database, hints)
    announcer.send_new()
    redis_server.flush()
    announcer.repeat_lost()
    announcer.repeat_lost()
    assert hints.count() == num_jobs


def test_nothing_is_repeated_for_jobs_that_are_held(database: Database, hints: CeleryHintQueue) -> None:
    add_job(database)
    claim_one(database)
    Announcer(database, hints).repeat_lost()
    assert hints.count() == 0


def test_a_hint_is_json_without_arguments(hints: CeleryHintQueue, redis_server: RedisServer) -> None:
    hints.send()
    with redis_server.connect() as client:
        message = json.loads(client.lindex("sama.look", 0))
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == "worker.look"
    assert message["headers"]["argsrepr"] == "()"
