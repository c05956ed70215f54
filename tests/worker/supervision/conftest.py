"""Attempts played by small programs, so that their supervision can be tested in a moment."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from service.db.engine import Database
from service.settings import Settings
from tests.service.attempts.factory import claim_one
from worker.supervisor import AttemptSupervisor

# Each tells that it is ready by a file, whose path is its first argument.
READY = "import os, signal, sys, time, pathlib\nready = lambda: pathlib.Path(sys.argv[1]).touch()\n"
PROGRAMS = {
    "stops when told": "signal.signal(signal.SIGTERM, lambda *_: os._exit(75))\nready()\nsignal.pause()",
    "hears nothing": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready()\ntime.sleep(600)",
    "says it is done": "ready()\nos._exit(0)",
    "fails without a word": "ready()\nos._exit(1)",
    "stops by itself": "ready()\nos._exit(75)",
    "crashes": "ready()\nos.kill(os.getpid(), signal.SIGSEGV)",
    "is killed": "ready()\nos.kill(os.getpid(), signal.SIGKILL)",
    "talks": "print('postgresql://sama:hidden@host/db is where I write')\nprint('to error', file=sys.stderr)\nready()",
    "leaves a child": (
        "if os.fork() == 0:\n    pathlib.Path(sys.argv[1] + '.child').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\nelse:\n    ready()\n    time.sleep(600)"
    ),
}


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Settings with a short lease and a short grace."""
    return settings.model_copy(update={"lease_seconds": 1.5, "stop_grace_seconds": 1.0})


class SupervisedAttempt:
    """A supervisor at work in a thread."""

    def __init__(self, database: Database, settings: Settings, ready: Path) -> None:
        claimed_at = time.monotonic()
        self.claim = claim_one(database, "w1", settings.lease_seconds)
        self.supervisor = AttemptSupervisor(database, settings, self.claim, claimed_at)
        self.ready_path = str(ready)
        self._ready = ready
        self._thread = threading.Thread(target=self.supervisor.run)
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Return once the program has set itself up."""
        deadline = time.monotonic() + 30
        while not self._ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wait_until_over(self, seconds: float = 30) -> None:
        """Return once the supervisor is done."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the supervisor does not come to an end"


Supervise = Callable[[str], SupervisedAttempt]


@pytest.fixture
def supervise(
    database: Database, quick: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Supervise]:
    """Claim the first queued job and supervise a program in the place of its attempt."""
    running: list[SupervisedAttempt] = []
    ready = tmp_path / "ready"

    def start(program: str) -> SupervisedAttempt:
        command = [sys.executable, "-c", READY + PROGRAMS[program], str(ready)]
        monkeypatch.setattr("worker.supervisor.make_command", lambda *_: command)
        running.append(SupervisedAttempt(database, quick, ready))
        return running[-1]

    yield start
    for attempt in running:
        attempt.supervisor.stop()
        attempt.wait_until_over()


@pytest.fixture
def outage(request: pytest.FixtureRequest, database: Database) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which nobody can write to the database."""

    @contextmanager
    def lock_sqlite() -> Iterator[None]:
        with database.engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
            yield

    @contextmanager
    def close_postgres() -> Iterator[None]:
        server, name = request.getfixturevalue("postgres_server"), database.url.database
        server.forbid_connections(name)
        try:
            yield
        finally:
            server.allow_connections(name)

    return lock_sqlite if database.is_sqlite else close_postgres
