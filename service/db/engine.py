"""Engines and transactions, the same to callers on SQLite and Postgres."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from service.settings import Settings

_BUSY_SECONDS = 30


class Database:
    """One engine and its two kinds of transaction: `read` and `write`.

    On SQLite a write begins with BEGIN IMMEDIATE, so that two writers queue up instead of failing halfway.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _create_sqlite_engine(url) if self.is_sqlite else _create_postgres_engine(url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for reading; nothing in it is committed."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session whose transaction commits when the block ends and rolls back when it raises."""
        with Session(self.engine, expire_on_commit=False) as session:
            if self.is_sqlite:
                session.connection(execution_options={"sqlite_begin": "IMMEDIATE"})
            yield session
            session.commit()

    def ping(self) -> None:
        """Run the smallest query there is; raises what the driver raises when the database is away."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def create_database(settings: Settings) -> Database:
    """Return the database that the settings name, its directory made (mode 0700) where it is SQLite."""
    database_url = settings.resolved_database_url
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Database(database_url)


def _create_postgres_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(
        parsed,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=20,
        # A frozen worker must not hold a row for ever: its transaction is ended by the server.
        connect_args={
            "options": "-c idle_in_transaction_session_timeout=30000 -c lock_timeout=30000",
            "connect_timeout": 10,
        },
    )


def _create_sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own implicit BEGIN would ignore `sqlite_begin`
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"busy_timeout={_BUSY_SECONDS * 1000}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine
