"""Asking an attempt to stop: the flag that a signal raises and that step boundaries look at."""

import os
import signal
import sys
import threading


class AttemptStopped(Exception):  # noqa: N818 (not an error: the attempt did as it was told)
    """The attempt was asked to stop and has done so at a step boundary."""


class StopFlag:
    """Set by SIGTERM (or by a test); read at step boundaries."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def is_set(self) -> bool:
        """True once a stop was asked for."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask the attempt to stop."""
        self._event.set()

    def check(self) -> None:
        """Raise AttemptStopped if a stop was asked for: for places with nothing worth a checkpoint."""
        if self.is_set:
            raise AttemptStopped

    def listen(self) -> None:
        """Let SIGTERM set the flag. Call from the main thread."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.set())


def watch_parent(exit_code: int) -> None:
    """End this process at once when standard input closes: its supervisor is gone and nobody renews the lease."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(exit_code)

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()
