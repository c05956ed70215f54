"""Queries about one-time links and dashboard sessions."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.auth.tables import DashboardSessionTable, LoginLinkTable
from service.db.base import db_now
from service.db.statements import count_changed


class AccessRepository:
    """The tables of links and sessions. Call inside a transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add_link(self, digest: str, lifetime_seconds: float) -> None:
        """Store a new link, and forget those that ran out."""
        self._session.execute(delete(LoginLinkTable).where(LoginLinkTable.expires_at < db_now()))
        self._session.add(LoginLinkTable(digest=digest, expires_at=db_now() + lifetime_seconds))

    def take_link(self, digest: str) -> bool:
        """Use a link up; False where it was used before, ran out or never was."""
        statement = delete(LoginLinkTable).where(LoginLinkTable.digest == digest, LoginLinkTable.expires_at >= db_now())
        return count_changed(self._session, statement) == 1

    def add_session(self, digest: str, key_digest: str, lifetime_seconds: float) -> None:
        """Store a new session, and forget those that ran out."""
        table = DashboardSessionTable
        self._session.execute(delete(table).where(table.expires_at < db_now()))
        self._session.add(table(digest=digest, key_digest=key_digest, expires_at=db_now() + lifetime_seconds))

    def has_session(self, digest: str, key_digest: str) -> bool:
        """Tell whether there is a live session that was opened under this key."""
        table = DashboardSessionTable
        query = select(table.digest).where(
            table.digest == digest, table.key_digest == key_digest, table.expires_at >= db_now()
        )
        return self._session.scalar(query) is not None

    def remove_session(self, digest: str) -> None:
        """End a session."""
        self._session.execute(delete(DashboardSessionTable).where(DashboardSessionTable.digest == digest))
