"""Announcing queued jobs to the broker. A message is a hint to look at the job table; the table is the truth."""

from typing import Protocol

from service.db.engine import Database
from service.jobs.outbox import OutboxRepository
from service.logging import get_logger

_log = get_logger(__name__)
_MAX_MESSAGES = 100


class AbstractHintQueue(Protocol):
    """Where hints go."""

    def send(self) -> None:
        """Send one hint; raises if the broker does not take it."""

    def count(self) -> int:
        """Return how many hints wait to be taken."""


class Announcer:
    """Tells the broker of queued jobs; every worker has one, and any number may run at once."""

    def __init__(self, database: Database, hints: AbstractHintQueue) -> None:
        self._database = database
        self._hints = hints

    def send_new(self) -> None:
        """Send a hint for each job in the outbox.

        A hint is sent before its row is gone for good: a failed send leaves the row, a failed commit sends twice.
        """
        with self._database.read() as session:
            if OutboxRepository(session).is_empty():
                return
        with self._database.write() as session:
            for _job_id in OutboxRepository(session).take(_MAX_MESSAGES):
                self._hints.send()

    def repeat_lost(self) -> None:
        """Send hints again where jobs are queued but the broker holds none: it was restarted or emptied."""
        with self._database.read() as session:
            num_queued = OutboxRepository(session).count_queued()
        if num_queued and not self._hints.count():
            _log.info("jobs are queued but the broker knows of none; announcing again", num_queued=num_queued)
            for _ in range(min(num_queued, _MAX_MESSAGES)):
                self._hints.send()
