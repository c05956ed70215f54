"""A thread that does one thing again and again, and outlives outages."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from service.logging import get_logger
from worker.outages import BROKER_OUTAGES, DATABASE_OUTAGES, describe_outage

_log = get_logger(__name__)
_MAX_BACKOFF_SECONDS = 10.0
_JOIN_SECONDS = 5.0  # long enough for any statement that is not itself waiting for a lock


class PeriodicThread:
    """Calls `action` every `seconds` until stopped, at once when woken, and less often while a server is away.

    Leaving its context stops it and waits up to `join_seconds` (None: as long as it takes) for the call under way.
    """

    def __init__(
        self, name: str, seconds: float, action: Callable[[], object], *, join_seconds: float | None = _JOIN_SECONDS
    ) -> None:
        self._seconds = seconds
        self._action = action
        self._join_seconds = join_seconds
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(self._join_seconds)

    def wake(self) -> None:
        """Call the action now, or once more if it is under way."""
        self._wake.set()

    def stop(self) -> None:
        """Call the action no more; what is under way goes on to its end."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        pause = self._seconds
        while not self._stopped:
            self._wake.clear()
            pause = self._seconds if self._act() else min(pause * 2, self._longest_pause)
            if not self._stopped:
                self._wake.wait(pause)

    @property
    def _longest_pause(self) -> float:
        return max(self._seconds, _MAX_BACKOFF_SECONDS)

    def _act(self) -> bool:
        try:
            self._action()
        except (*DATABASE_OUTAGES, *BROKER_OUTAGES) as exc:
            _log.warning("a server is away; trying again", what=self._thread.name, reason=describe_outage(exc))
            return False
        except Exception:  # noqa: BLE001 (the outermost guard of this thread: the worker must not go deaf)
            _log.exception("unexpected error; trying again", what=self._thread.name)
            return False
        return True
