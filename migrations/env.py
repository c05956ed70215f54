"""How Alembic reaches the database; the URL comes from `service.db.migrate`."""

from alembic import context

import service.attempts.tables
import service.auth.tables
import service.jobs.tables
import service.results.tables  # noqa: F401 (the imports fill the metadata)
from service.db.base import Base
from service.db.engine import Database

_LOCK_ID = 7_364_018_222_101  # any constant: two migrations at once must queue up


def run_migrations() -> None:
    """Apply migrations over one connection, under an advisory lock on Postgres."""
    database = Database(context.config.attributes["database_url"])
    with database.engine.connect() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK_ID})")
            connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=database.is_sqlite)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    database.dispose()


run_migrations()
