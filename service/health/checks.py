"""Whether the service can do its work: the database, the queue, the storage, and a worker."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from sqlalchemy.exc import SQLAlchemyError

from service.attempts.workers import WorkerRepository
from service.db.engine import Database
from service.jobs.repository import JobRepository
from service.logging import get_logger
from service.settings import Settings

_log = get_logger(__name__)
_QUEUE_TIMEOUT_SECONDS = 2.0
# Celery's way to write a unix socket; the client's own is unix://
_CELERY_SOCKET = "redis+socket://"


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the service: whether it works, in words."""

    name: str
    is_ok: bool
    message: str


class ReadinessService:
    """Asks every part that a job needs."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def check(self) -> list[Check]:
        """Return the state of every part, none left out because another failed."""
        parts: dict[str, Callable[[], str | None]] = {
            "database": self._find_database_fault,
            "queue": self._find_queue_fault,
            "storage": self._find_storage_fault,
            "worker": self._find_worker_fault,
        }
        faults = {name: find() for name, find in parts.items()}
        return [Check(name, fault is None, fault or "ok") for name, fault in faults.items()]

    def _find_database_fault(self) -> str | None:
        try:
            with self._database.read() as session:
                JobRepository(session).count_states()
        except SQLAlchemyError as exc:
            _log.warning("the database is not ready", exc_info=exc)
            return "The database does not answer, or its schema is missing (run: sama migrate)."
        return None

    def _find_queue_fault(self) -> str | None:
        if self._settings.broker_url is None:
            return None
        url = self._settings.broker_url.get_secret_value()
        if url.startswith(_CELERY_SOCKET):
            url = "unix://" + url.removeprefix(_CELERY_SOCKET).partition("?")[0]
        try:
            with Redis.from_url(
                url,
                socket_timeout=_QUEUE_TIMEOUT_SECONDS,
                socket_connect_timeout=_QUEUE_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            ) as client:
                client.ping()
        except (RedisError, OSError, ValueError) as exc:
            _log.warning("the queue is not ready", error=type(exc).__name__)
            return "The queue (SAMA_BROKER_URL) does not answer."
        return None

    def _find_storage_fault(self) -> str | None:
        try:
            _try_write(self._settings.data_dir)
        except OSError as exc:
            _log.warning("the storage is not ready", error=exc.strerror)
            return "The data directory cannot be written to."
        return None

    def _find_worker_fault(self) -> str | None:
        seconds = self._settings.lease_seconds
        try:
            with self._database.read() as session:
                alive = WorkerRepository(session).list_alive(seconds)
        except SQLAlchemyError:
            return "The database does not say whether a worker is alive."
        return None if alive else f"No worker was heard of within {seconds:g} seconds."


def _try_write(directory: Path) -> None:
    probe = directory / f".probe-{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"ready")
    finally:
        probe.unlink(missing_ok=True)
