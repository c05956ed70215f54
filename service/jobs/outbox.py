"""The announcements that still have to reach the queue."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.jobs.state import JobState
from service.jobs.tables import JobTable, OutboxTable


class OutboxRepository:
    """The outbox for whoever sends announcements. Call inside a transaction of `Database.write`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, limit: int) -> Sequence[str]:
        """Remove up to `limit` announcements, oldest first, and return their job ids.

        They are gone only if the caller's transaction commits: send first, and let a failed send roll back.
        """
        query = select(OutboxTable).order_by(OutboxTable.id).limit(limit).with_for_update(skip_locked=True)
        rows = self._session.scalars(query).all()
        self._session.execute(delete(OutboxTable).where(OutboxTable.id.in_([row.id for row in rows])))
        return [row.job_id for row in rows]

    def is_empty(self) -> bool:
        """Say whether nothing waits to be announced, without locking anything."""
        return self._session.scalar(select(OutboxTable.id).limit(1)) is None

    def count_queued(self) -> int:
        """Return how many jobs wait for a worker."""
        query = select(func.count()).select_from(JobTable).where(JobTable.state == JobState.QUEUED)
        return self._session.scalar(query) or 0
