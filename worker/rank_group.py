"""The other processes of a training that several devices share, as the attempt that starts them sees them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from service.attempts.state import Failure
from service.logging import get_logger
from worker.exits import DONE, LOST
from worker.failures import OUT_OF_MEMORY, RANK_LOST
from worker.memory import count_memory_kills
from worker.rank_task import RankTask

_log = get_logger(__name__)

_LOOK_SECONDS = 0.2
_EXPLAIN_SECONDS = 5.0
_FINISH_SECONDS = 30.0
# How long the attempt may take to notice, by itself, that a rank is gone; it may hang inside a GPU's library.
_NOTICE_SECONDS = 20.0
_SECRETS = ("SAMA_DATABASE_URL", "SAMA_BROKER_URL", "SAMA_API_KEY")


class RankError(Exception):
    """A rank failed, or is gone; `failure` is what to say of it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Rank:
    """One process and what it has said."""

    def __init__(self, task: RankTask, on_news: Callable[["_Rank"], None]) -> None:
        self.number, self.is_ready = task.rank, False
        self.failure: Failure | None = None
        self._on_news = on_news
        flags = ["-P"] if sys.flags.safe_path else []
        self.process = subprocess.Popen(
            [sys.executable, *flags, "-m", "worker.rank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name not in _SECRETS},
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(task.write())
            self.process.stdin.flush()
        self.reader = threading.Thread(target=self._read, name=f"rank-{task.rank}", daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            note = json.loads(line)
            self.is_ready = self.is_ready or "ready" in note
            if "failure" in note:
                self.failure = Failure(**note["failure"])
            self._on_news(self)
        self.process.wait()
        self._on_news(self)

    @property
    def is_lost(self) -> bool:
        """True once it has ended otherwise than by finishing its work."""
        return self.process.returncode not in {None, DONE}


class RankGroup:
    """Ranks 1 and up of a training. Leaving its context ends those that still run."""

    def __init__(self, tasks: Sequence[RankTask]) -> None:
        self._kills_before = count_memory_kills()
        self._news: SimpleQueue[_Rank] = SimpleQueue()
        self._is_over = threading.Event()
        self._ranks: list[_Rank] = []
        try:
            for task in tasks:
                self._ranks.append(_Rank(task, self._hear))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> "RankGroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def await_ready(self, check: Callable[[], None]) -> None:
        """Return once every rank can join.

        Args:
            check: called now and then; may raise.

        Raises:
            RankError: one of them has failed.
        """
        while not all(rank.is_ready for rank in self._ranks):
            check()
            with suppress(Empty):
                self._news.get(timeout=_LOOK_SECONDS)
            if any(rank.is_lost for rank in self._ranks):
                raise self.explain()

    def explain(self) -> RankError:
        """Return why the others have stopped answering, as far as they have said or their end tells."""
        self._is_over.set()
        for rank in self._ranks:
            rank.reader.join(_EXPLAIN_SECONDS)
        lost = [rank for rank in self._ranks if rank.is_lost]
        # One that says why comes before those that only lost sight of it.
        failures = [rank.failure for rank in lost if rank.failure not in {None, RANK_LOST}]
        if failures and failures[0] is not None:
            return RankError(failures[0])
        was_killed = any(rank.process.returncode == -signal.SIGKILL for rank in lost)
        kills = count_memory_kills()
        if was_killed and kills is not None and self._kills_before is not None and kills > self._kills_before:
            return RankError(OUT_OF_MEMORY)
        return RankError(RANK_LOST)

    def finish(self) -> None:
        """Wait for the ranks to end by themselves, their work done."""
        self._is_over.set()
        for rank in self._ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.process.wait(_FINISH_SECONDS)

    def close(self) -> None:
        """End what still runs."""
        self._is_over.set()
        for rank in self._ranks:
            rank.process.kill()
            rank.process.wait()
            rank.reader.join()
            for stream in (rank.process.stdin, rank.process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()

    def _hear(self, rank: _Rank) -> None:
        self._news.put(rank)
        if rank.is_lost and not self._is_over.is_set():
            _log.warning("a rank has ended", rank=rank.number, exit_code=rank.process.returncode)
            threading.Thread(target=self._end_unless_noticed, name="rank-lost", daemon=True).start()

    def _end_unless_noticed(self) -> None:
        if not self._is_over.wait(_NOTICE_SECONDS):
            _log.error("the attempt does not notice that a rank is gone; ending it")
            os._exit(LOST)
