"""Supervising one attempt: its process, its lease, its limits, and what is written when it ends."""

import signal
import time
from enum import Enum, auto
from queue import Empty, SimpleQueue

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim, Failure
from service.db.engine import Database
from service.errors import StaleAttemptError
from service.jobs.state import Phase
from service.logging import get_logger
from service.settings import Settings
from worker.child import AttemptProcess, make_command
from worker.exits import STOPPED
from worker.failures import OUT_OF_MEMORY, TIME_LIMIT, WORKER_LOST, describe_slow_start
from worker.lease import LeaseKeeper, LeaseNews
from worker.memory import count_memory_kills
from worker.outages import DATABASE_OUTAGES, describe_outage

_RETRY_SECONDS = 1.0
_NEVER = float("inf")
_BEFORE_TRAINING = (None, Phase.VALIDATING, Phase.READING)


class EndReason(Enum):
    """Why the supervisor, and not the attempt itself, brought an attempt to its end."""

    CANCEL = auto()
    STOP = auto()
    TIME_LIMIT = auto()
    DATABASE_LOST = auto()
    LEASE_GONE = auto()


class _Note(Enum):
    EXITED = auto()
    STOP = auto()


class AttemptSupervisor:
    """Runs one claimed attempt to its end; `claimed_at` is `time.monotonic()` before the claim was sent."""

    def __init__(self, database: Database, settings: Settings, claim: Claim, claimed_at: float) -> None:
        self._database = database
        self._settings = settings
        self._claim = claim
        self._log = get_logger(__name__).bind(job_id=claim.job_id, attempt=claim.attempt)
        self._inbox: SimpleQueue[LeaseNews | _Note] = SimpleQueue()
        self._keeper = LeaseKeeper(database, settings, claim, claimed_at, self._inbox.put)
        self._reason: EndReason | None = None
        self._failure = WORKER_LOST
        self._exit_code: int | None = None
        self._stop_requested = False
        self._out_of_time_at = time.monotonic() + claim.max_seconds - claim.used_seconds
        self._kill_at = _NEVER

    def stop(self) -> None:
        """Ask for a checkpoint and give the job back; from any thread, or from a signal handler."""
        self._stop_requested = True
        self._inbox.put(_Note.STOP)

    def run(self) -> None:
        """Run the attempt; returns when its process has ended and its end is written."""
        self._keeper.start()
        try:
            if self._claim.used_seconds >= self._claim.max_seconds:
                self._reason = EndReason.TIME_LIMIT
            else:
                self._run_process()
            self._settle()
        finally:
            self._keeper.stop()

    def _run_process(self) -> None:
        kills_before = count_memory_kills()
        command = make_command(self._claim.job_id, self._claim.attempt, self._out_of_time_at)
        try:
            process = AttemptProcess(command, on_exit=lambda: self._inbox.put(_Note.EXITED))
        except OSError as exc:
            self._log.error("the attempt's process cannot be started", reason=str(exc))
            return
        self._log.info("attempt started", process_id=process.process_id)
        try:
            self._attend(process)
        finally:
            if process.exit_code is None:  # an error on the way here: the attempt must not outlive its supervisor
                process.kill()
            process.close()
        self._exit_code = process.exit_code
        self._failure = self._explain_death(process, kills_before)

    def _attend(self, process: AttemptProcess) -> None:
        """Return when the process has ended; see to it that it does where it must."""
        while (note := self._next_note(process)) is not _Note.EXITED:
            if note is LeaseNews.LEASE_GONE:
                self._end_now(process, EndReason.LEASE_GONE)
            elif note is LeaseNews.CANCEL_REQUESTED:
                self._end_softly(process, EndReason.CANCEL)
            elif note is _Note.STOP:
                self._end_softly(process, EndReason.STOP)
            elif note is LeaseNews.JOB_ENDED:
                self._kill_at = min(self._kill_at, time.monotonic() + self._settings.stop_grace_seconds)
            elif not process.was_killed:
                self._look_at_clock(process)

    def _next_note(self, process: AttemptProcess) -> LeaseNews | _Note | None:
        """Return the next note, or None when a moment has come at which the clock must be looked at."""
        if process.was_killed:
            return self._inbox.get()
        moments = [self._keeper.trusted_until, self._kill_at]
        if self._reason is None:
            moments.append(self._out_of_time_at)
        try:
            return self._inbox.get(timeout=max(0.0, min(moments) - time.monotonic()))
        except Empty:
            return None

    def _look_at_clock(self, process: AttemptProcess) -> None:
        now = time.monotonic()
        if now >= self._keeper.trusted_until:
            self._end_now(process, EndReason.DATABASE_LOST)
        elif now >= self._kill_at:
            self._log.warning("attempt did not stop in time; killed")
            process.kill()
        elif now >= self._out_of_time_at and self._reason is None:
            self._end_softly(process, EndReason.TIME_LIMIT)

    def _end_softly(self, process: AttemptProcess, reason: EndReason) -> None:
        if self._reason is None:
            self._log.info("attempt asked to stop", reason=reason.name.lower())
            self._reason = reason
            self._kill_at = min(self._kill_at, time.monotonic() + self._settings.stop_grace_seconds)
            process.terminate()

    def _end_now(self, process: AttemptProcess, reason: EndReason) -> None:
        self._log.warning("attempt killed: nobody may believe that it still holds its job", reason=reason.name.lower())
        self._reason = reason
        process.kill()

    def _explain_death(self, process: AttemptProcess, kills_before: int | None) -> Failure:
        """Return the failure that stands if the attempt turns out to have left none of its own."""
        code = process.exit_code
        if code == -signal.SIGKILL and not process.was_killed and kills_before is not None:
            kills_after = count_memory_kills()
            if kills_after is not None and kills_after > kills_before:
                return OUT_OF_MEMORY
        if code is not None and code < 0 and self._reason is None:
            self._log.warning(
                "attempt killed by a signal", signal=signal.Signals(-code).name, last_output=process.last_output
            )
        return WORKER_LOST

    def _settle(self) -> None:
        """Write how the attempt ended, unless it has done so itself; waits for a database that is away."""
        give_up_at = time.monotonic() + self._settings.stop_grace_seconds
        while self._reason is not EndReason.LEASE_GONE:
            try:
                with self._database.write() as session:
                    self._write_end(AttemptRepository(session))
            except StaleAttemptError:
                self._log.debug("attempt has written its own end, or lost its job", exit_code=self._exit_code)
            except DATABASE_OUTAGES as exc:
                self._log.warning("the attempt's end cannot be written; trying again", reason=describe_outage(exc))
                if not self._stop_requested or time.monotonic() < give_up_at:
                    self._pause()
                    continue
            return

    def _write_end(self, repository: AttemptRepository) -> None:
        job_id, attempt = self._claim.job_id, self._claim.attempt
        unbooked_seconds = self._keeper.take_unbooked_seconds()
        status = repository.renew(job_id, attempt, self._settings.lease_seconds, unbooked_seconds)
        if status.cancel_requested:
            repository.cancel(job_id, attempt)
        elif self._reason is EndReason.STOP:
            repository.release(job_id, attempt, "its worker is shutting down")
        elif self._reason is EndReason.DATABASE_LOST:
            repository.release(job_id, attempt, "its worker could not reach the database")
        elif self._reason is EndReason.TIME_LIMIT:
            repository.fail(job_id, attempt, self._explain_time_limit(status.phase))
        elif self._exit_code == STOPPED:
            repository.release(job_id, attempt, "its attempt was told to stop")
        else:
            self._log.warning("attempt ended without a word", exit_code=self._exit_code)
            repository.fail(job_id, attempt, self._failure)

    def _explain_time_limit(self, phase: str | None) -> Failure:
        """Return that the time is used up, and by what where no training had a part in it."""
        own_seconds = self._claim.max_seconds - self._claim.used_seconds
        if own_seconds <= 0 or self._claim.checkpoint_path is not None or phase not in _BEFORE_TRAINING:
            return TIME_LIMIT
        return describe_slow_start(own_seconds, self._claim.max_seconds)

    def _pause(self) -> None:
        try:
            self._inbox.get(timeout=_RETRY_SECONDS)
        except Empty:
            return
