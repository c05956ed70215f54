"""The service on this machine alone: its data directory, its API and its worker, as child processes."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from service.cli.console import console
from service.cli.processes import ChildProcesses
from service.client.client import Client
from service.errors import ServiceError

LOCK_FILE = "lock"
READY_SECONDS = 60.0
STOP_SECONDS = 35.0
_READY_POLL_SECONDS = 0.05
_LONGEST_SOCKET_PATH = 100
# Settings that would make the embedded service another one than it is.
_FOREIGN_SETTINGS = ("SAMA_DATABASE_URL", "SAMA_BROKER_URL", "SAMA_API_KEY", "SAMA_URL", "SAMA_HOST", "SAMA_PORT")
UNFINISHED_STATES = ("queued", "validating", "running", "evaluating", "cancelling")


class EmbeddedService:
    """The same API and worker as in production, on SQLite and a unix socket, for as long as one command runs."""

    def __init__(self, data_dir: Path, data_roots: Sequence[Path]) -> None:
        self._socket_dir = _make_socket_directory()
        self._socket = self._socket_dir / "api.sock"
        self._children = ChildProcesses(
            _build_environment(data_dir, data_roots, self._socket_dir), log_path=self._socket_dir / "service.log"
        )
        self._data_dir = data_dir
        self.client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self.client is not None:
            self.client.close()
        self._children.stop(STOP_SECONDS)
        if console.is_debug and error is not None:
            console.note(self._children.read_log())
        shutil.rmtree(self._socket_dir, ignore_errors=True)

    def start_api(self) -> Client:
        """Migrate the database, start the API, and return a client of it.

        Raises:
            ServiceError: `process_ended`; it did not start.
        """
        self._children.run("migration", "service.db.migrate")
        self._children.start("API", "service.main", "--uds", str(self._socket))
        wait_until_alive(f"unix://{self._socket}", self._children)
        self.client = Client(f"unix://{self._socket}", read_api_key(self._data_dir))
        return self.client

    def start_worker(self) -> None:
        """Start the worker."""
        self._children.start("worker", "worker")

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Within the block an API or worker that ends raises `process_ended` at once."""
        return self._children.watched()


def wait_until_alive(url: str, children: ChildProcesses) -> None:
    """Return once the API answers.

    Raises:
        ServiceError: `process_ended`; a child ended, or the API did not answer within a minute.
    """
    deadline = time.monotonic() + READY_SECONDS
    with Client(url, timeout_seconds=5.0) as client:
        while not client.is_alive():
            children.check()
            if time.monotonic() > deadline:
                raise ServiceError("process_ended", f"The API did not answer within {READY_SECONDS:g} seconds.")
            time.sleep(_READY_POLL_SECONDS)


def read_api_key(data_dir: Path) -> str:
    """Return the key that the API made at its first start."""
    return (data_dir / "api-key").read_text(encoding="ascii").strip()


@contextlib.contextmanager
def use_data_directory(data_dir: Path | None) -> Iterator[Path]:
    """Lend a data directory: the one named, locked for this process, or a private one that is removed afterwards.

    Raises:
        ServiceError: `data_directory_in_use`.
    """
    if data_dir is None:
        private = Path(tempfile.mkdtemp(prefix="sama-"))
        try:
            yield private
        finally:
            shutil.rmtree(private, ignore_errors=True)
        return
    with lock_data_directory(data_dir):
        yield data_dir.resolve()


@contextlib.contextmanager
def lock_data_directory(data_dir: Path) -> Iterator[None]:
    """Hold a data directory for this process; the lock ends with the process, however that ends.

    Raises:
        ServiceError: `data_directory_in_use`, or `data_directory_not_usable`.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        message = f"The data directory {str(data_dir)!r} cannot be used: {exc.strerror}."
        raise ServiceError("data_directory_not_usable", message) from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(file)
        message = f"The data directory {str(data_dir)!r} is in use by another `sama serve` or `sama curate`."
        hint = "Submit the job to it with `sama submit`, or name another directory with --data-dir."
        raise ServiceError("data_directory_in_use", message, hint=hint) from exc
    try:
        yield
    finally:
        os.close(file)


def refuse_unfinished_jobs(client: Client, data_dir: Path) -> None:
    """Refuse a data directory with unfinished jobs of others, which this command's worker would take first.

    Raises:
        ServiceError: `data_directory_in_use`.
    """
    unfinished = client.list(states=UNFINISHED_STATES, limit=1).items
    if unfinished:
        message = f"The data directory {str(data_dir)!r} holds job {unfinished[0].id}, which is {unfinished[0].state}."
        hint = "Let `sama serve` finish it, cancel it there, or name another directory with --data-dir."
        raise ServiceError("data_directory_in_use", message, hint=hint)


def join_roots(roots: Sequence[Path]) -> str:
    """Return folders as the setting SAMA_DATA_ROOTS takes them.

    Raises:
        ServiceError: `path_not_allowed`; a name holds the separator.
    """
    names = [str(root.resolve()) for root in roots]
    for name in names:
        if ":" in name:
            raise ServiceError("path_not_allowed", f"The folder {name!r} has ':' in its name; wanted one without.")
    return ":".join(names)


def _build_environment(data_dir: Path, data_roots: Sequence[Path], temporary: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN_SETTINGS}
    return environment | {
        "SAMA_DATA_DIR": str(data_dir),
        "SAMA_DATA_ROOTS": join_roots(data_roots),
        "SAMA_POLL_SECONDS": "0.1",
        "SAMA_PROGRESS_SECONDS": "0.5",
        "PYTHONUNBUFFERED": "1",
        # Whatever a library leaves in the temporary folder goes with the rest.
        "TMPDIR": str(temporary),
    }


def _make_socket_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="sama-"))
    if len(str(directory)) <= _LONGEST_SOCKET_PATH - len("/api.sock"):
        return directory
    # The system limits a socket's path to some hundred bytes; TMPDIR may be longer than that.
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="sama-", dir="/tmp"))
