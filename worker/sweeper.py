"""The sweep: jobs whose worker fell silent go back to the queue."""

from collections.abc import Sequence

from sqlalchemy.exc import OperationalError

from service.attempts.repository import AttemptRepository
from service.attempts.state import ExpiredLease
from service.attempts.workers import WorkerRepository
from service.db.engine import Database
from service.logging import get_logger
from worker.failures import WORKER_LOST
from worker.holders import kill_attempt, kill_frozen_worker

_log = get_logger(__name__)


class Sweeper:
    """Sweeps the expired leases of one database; every worker has one, and any number may run at once."""

    def __init__(self, database: Database, hostname: str) -> None:
        self._database = database
        self._hostname = hostname

    def sweep(self) -> None:
        """End every attempt whose lease ran out: back to the queue while attempts are left, else failed."""
        with self._database.read() as session:
            expired = AttemptRepository(session).list_expired()
        if not expired:
            return
        if self._database.is_sqlite:
            self._kill_attempts(expired)
        try:
            while self._end_one():
                pass
        except OperationalError:
            if self._database.is_sqlite:
                self._kill_frozen_workers(expired)
            raise

    def _end_one(self) -> bool:
        with self._database.write() as session:
            repository = AttemptRepository(session)
            leases = repository.list_expired(limit=1)
            for lease in leases:
                state = repository.fail(lease.job_id, lease.attempt, WORKER_LOST)
                _log.warning(
                    "lease expired", job_id=lease.job_id, attempt=lease.attempt, worker=lease.worker_id, now=state
                )
        return bool(leases)

    # One frozen process inside a write transaction stops every other writer of an SQLite file, and no server is
    # there to end that transaction. The file is on this machine, so the process is, too.

    def _kill_attempts(self, expired: Sequence[ExpiredLease]) -> None:
        for lease in expired:
            if kill_attempt(lease.job_id, lease.attempt):
                _log.warning("killed an attempt that outlived its lease", job_id=lease.job_id, attempt=lease.attempt)

    def _kill_frozen_workers(self, expired: Sequence[ExpiredLease]) -> None:
        with self._database.read() as session:
            workers = [WorkerRepository(session).find(lease.worker_id) for lease in expired if lease.worker_id]
        for worker in workers:
            if worker is not None and kill_frozen_worker(worker, self._hostname):
                _log.warning("killed a frozen worker that held the database", worker=worker.id)
