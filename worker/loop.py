"""The worker: takes one job after another and keeps its own row in the table of workers."""

import threading
import time
from types import TracebackType
from typing import Self

from service.attempts.repository import AttemptRepository
from service.attempts.tables import WorkerTable
from service.attempts.workers import WorkerRepository
from service.db.engine import Database
from service.jobs.outbox import OutboxRepository
from service.logging import get_logger
from service.settings import Settings
from worker.identity import WorkerIdentity
from worker.outages import DATABASE_OUTAGES, describe_outage
from worker.periodic import PeriodicThread
from worker.supervisor import AttemptSupervisor

_log = get_logger(__name__)


class Worker:
    """One worker: at most one attempt at a time, whoever tells it to look.

    A context manager: within it the worker is known to be alive, after it the worker is forgotten.
    """

    def __init__(self, database: Database, settings: Settings, identity: WorkerIdentity) -> None:
        self._database = database
        self._settings = settings
        self._identity = identity
        self._one_at_a_time = threading.Lock()
        self._stopping = False
        self._supervisor: AttemptSupervisor | None = None
        self._job_id: str | None = None
        self._heartbeat = PeriodicThread("heartbeat", settings.heartbeat_seconds, self._beat)

    def __enter__(self) -> Self:
        self._heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heartbeat.__exit__(kind, error, trace)
        try:
            with self._database.write() as session:
                WorkerRepository(session).remove(self._identity.id)
        except DATABASE_OUTAGES as exc:
            _log.warning("the worker's row stays behind until it is a day old", reason=describe_outage(exc))

    def work(self) -> None:
        """Take queued jobs, one after another, until there are none or the worker stops.

        A caller that comes while an attempt runs waits for its end and then looks for more.
        """
        with self._one_at_a_time:
            while not self._stopping and self._work_once():
                pass

    def stop(self) -> None:
        """Take no more jobs; give back the one at hand after a checkpoint. From any thread or signal handler."""
        self._stopping = True
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.stop()

    def _work_once(self) -> bool:
        with self._database.read() as session:  # a look costs no lock; only a claim does
            if not OutboxRepository(session).count_queued():
                return False
        claimed_at = time.monotonic()
        with self._database.write() as session:
            claim = AttemptRepository(session).claim(self._identity.id, self._settings.lease_seconds)
        if claim is None:
            return False
        self._job_id = claim.job_id
        self._heartbeat.wake()
        try:
            self._supervisor = AttemptSupervisor(self._database, self._settings, claim, claimed_at)
            if self._stopping:  # asked between the claim and now
                self._supervisor.stop()
            self._supervisor.run()
        finally:
            self._supervisor = self._job_id = None
            self._heartbeat.wake()
        return True

    def _beat(self) -> None:
        row = WorkerTable(
            id=self._identity.id,
            hostname=self._identity.hostname,
            process_id=self._identity.process_id,
            device=self._identity.device,
            job_id=self._job_id,
        )
        with self._database.write() as session:
            WorkerRepository(session).beat(row)
