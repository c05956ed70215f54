"""A real Postgres for the tests: one server a session, a fresh database a test."""

import secrets
import shutil
import subprocess
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from tests.servers.binaries import find_postgres
from tests.servers.child import (
    make_server_directory,
    start_server,
    stop_server,
    unprivileged_user,
    wait_until_ready,
)

_TEST_OPTIONS = {  # safe only because these databases are thrown away
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}


class PostgresServer:
    """A server that databases are made on; started here unless `url` names one."""

    def __init__(self, url: str | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._admin = make_url(url) if url is not None else self._start()
        if self._admin.drivername != "postgresql+psycopg":
            self._admin = self._admin.set(drivername="postgresql+psycopg")
        self._template: str | None = None

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database on this server."""
        return self._admin.set(database=database).render_as_string(hide_password=False)

    def make_database(self, template: str | None = None) -> str:
        """Create a database, a copy of `template` where given, and return its name."""
        name = f"sama_test_{secrets.token_hex(8)}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(statement)
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def forbid_connections(self, name: str) -> None:
        """Close a database to everybody, as if the server were away for it alone."""
        identifier = sql.Identifier(name)
        self._execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(identifier))
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
        self._execute(sql.SQL(ending).format(sql.Literal(name)))

    def allow_connections(self, name: str) -> None:
        """Open a database again."""
        self._execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(sql.Identifier(name)))

    def stop(self) -> None:
        """End the server and remove its files, if it was started here."""
        if self._process is not None:
            stop_server(self._process)
        if self._directory is not None:
            shutil.rmtree(self._directory)

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(_libpq_url(self._admin), autocommit=True) as connection:
            connection.execute(statement)

    def _start(self) -> URL:
        programs, user = find_postgres(), unprivileged_user()
        directory = self._directory = make_server_directory("sama-pg", user)
        subprocess.run(
            [
                programs / "initdb",
                *("--pgdata", directory / "data"),
                *("--auth", "trust", "--username", "postgres", "--encoding", "UTF8", "--no-locale"),
                "--no-sync",
            ],
            user=user,
            cwd=directory,
            check=True,
            capture_output=True,
        )
        options = [part for name, value in _TEST_OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", directory / "data", "-k", directory, *options]
        self._process = start_server(command, directory, user)
        admin = URL.create(
            "postgresql+psycopg", username="postgres", database="postgres", query={"host": str(directory)}
        )
        wait_until_ready(self._process, lambda: _accepts(admin), directory)
        return admin


def _libpq_url(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _accepts(url: URL) -> bool:
    try:
        psycopg.connect(_libpq_url(url)).close()
    except psycopg.OperationalError:
        return False
    return True
