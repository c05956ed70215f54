"""Child processes of a command: started, watched, and surely ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.errors import ServiceError

_LOG_TAIL_BYTES = 8192


class ChildEndedError(ServiceError):
    """A child process ended although its work was still wanted."""

    def __init__(self, name: str, exit_code: int, last_line: str | None) -> None:
        how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        said = f"; its last words: {last_line}" if last_line else ""
        super().__init__("process_ended", f"The {name} process ended unexpectedly ({how}){said}")


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]


class ChildProcesses:
    """Python modules running beside this process, in sessions of their own: Ctrl-C reaches this process alone.

    Each one ends by itself when this process dies. With a log, what they write goes there; without, to
    standard error.
    """

    def __init__(self, environment: Mapping[str, str], log_path: Path | None = None) -> None:
        self._environment = dict(environment)
        self._log_path = log_path
        self._children: list[_Child] = []

    def run(self, name: str, module: str) -> None:
        """Run a module to its end. Raises ChildEndedError unless it ends well."""
        with self._open_log() as log:
            command = [sys.executable, "-m", module]
            finished = subprocess.run(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        if finished.returncode != 0:
            raise ChildEndedError(name, finished.returncode, self.read_last_line())

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start a module that is to run until `stop`."""
        with self._open_log() as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.cli.guarded", module, *arguments],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(_Child(name, process))

    def check(self) -> None:
        """Raise ChildEndedError if a child is no longer there."""
        for child in self._children:
            exit_code = child.process.poll()
            if exit_code is not None:
                raise ChildEndedError(child.name, exit_code, self.read_last_line())

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block a child that ends raises ChildEndedError at once, whatever the main thread waits for."""
        previous = signal.signal(signal.SIGCHLD, lambda _number, _frame: self.check())
        try:
            self.check()
            yield
        finally:
            signal.signal(signal.SIGCHLD, previous)

    def stop(self, grace_seconds: float) -> None:
        """Tell every child to stop, wait, and kill what is left of them and of their own children."""
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + grace_seconds
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
            if child.process.stdin is not None:
                child.process.stdin.close()
        self._children.clear()

    def read_last_line(self) -> str | None:
        """Return the last line that the children wrote, where there is a log."""
        lines = self.read_log().splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), None)

    def read_log(self) -> str:
        """Return the end of the log."""
        if self._log_path is None:
            return ""
        with self._log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace")

    @contextlib.contextmanager
    def _open_log(self) -> Iterator[IO[bytes] | None]:
        if self._log_path is None:
            yield sys.stderr.buffer
        else:
            with self._log_path.open("ab") as log:
                yield log
