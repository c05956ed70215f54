"""Who is alive: heartbeats of worker processes."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.attempts.tables import WorkerTable
from service.db.base import db_now
from service.db.statements import count_changed

_FORGOTTEN_AFTER_SECONDS = 24 * 3600


class WorkerRepository:
    """The worker table. Call inside a transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def beat(self, worker: WorkerTable) -> None:
        """Say that this worker is alive and what it is doing; adds it at the first beat."""
        values = {"heartbeat_at": db_now(), "job_id": worker.job_id}
        if worker.job_id is not None:
            values["worked_at"] = db_now()
        statement = update(WorkerTable).where(WorkerTable.id == worker.id).values(**values)
        if not count_changed(self._session, statement):
            self._session.merge(worker)

    def remove(self, worker_id: str) -> None:
        """Forget a worker that leaves in good order, and any that fell silent a day ago."""
        silent = WorkerTable.heartbeat_at < db_now() - _FORGOTTEN_AFTER_SECONDS
        self._session.execute(delete(WorkerTable).where((WorkerTable.id == worker_id) | silent))

    def find(self, worker_id: str) -> WorkerTable | None:
        """Return the worker's row, or None."""
        return self._session.get(WorkerTable, worker_id)

    def list_alive(self, silent_seconds: float) -> Sequence[WorkerTable]:
        """Return the workers heard of within the last `silent_seconds`."""
        query = (
            select(WorkerTable).where(WorkerTable.heartbeat_at >= db_now() - silent_seconds).order_by(WorkerTable.id)
        )
        return self._session.scalars(query).all()
