"""The process that an attempt runs in: started, told to stop, killed, and its output passed on."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from service.logging import redact_text

_TAIL_LINES = 20
_DRAIN_SECONDS = 2.0


class AttemptProcess:
    """A child in a process group of its own. It ends when this process does: it watches its standard input.

    `on_exit` is called once, from another thread, when the process has ended and its output has been read.
    """

    def __init__(self, command: Sequence[str], on_exit: Callable[[], None]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._on_exit = on_exit
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._reader = threading.Thread(target=self._pass_output_on, name="attempt-output", daemon=True)
        self._waiter = threading.Thread(target=self._wait, name="attempt-exit", daemon=True)
        self.was_killed = False
        self._reader.start()
        self._waiter.start()

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._process.returncode

    @property
    def last_output(self) -> str:
        """The last lines that the process wrote."""
        return "\n".join(self._tail)

    def terminate(self) -> None:
        """Ask the process to stop at its next step boundary."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and everything it started, at once."""
        self.was_killed = True
        self._kill_group()

    def close(self) -> None:
        """Let go of the process's standard input, once it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        self._process.wait()
        self._kill_group()  # what the attempt has started must not outlive it
        # Whatever has left the group may keep the pipe open; the end of the attempt does not wait for it.
        self._reader.join(_DRAIN_SECONDS)
        self._on_exit()

    def _pass_output_on(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for raw in output:
                line = redact_text(raw.decode(errors="replace")).rstrip("\n")
                self._tail.append(line)
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()


def make_command(job_id: str, attempt: int, ends_at: float) -> list[str]:
    """Return the command line of an attempt; `holders` recognises attempts by it.

    The attempt counts its time to `ends_at`, by the monotonic clock that all processes of a machine share: its own
    start, which may take many seconds on a busy machine, counts too.
    """
    flags = ["-P"] if sys.flags.safe_path else []
    return [sys.executable, *flags, "-m", "worker.attempt", job_id, str(attempt), f"{ends_at:.3f}"]
