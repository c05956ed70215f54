"""Keeping a lease: a thread that renews it, books the time spent, and hears what the job's row says meanwhile."""

import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim, LeaseStatus
from service.db.engine import Database
from service.errors import StaleAttemptError
from service.logging import get_logger
from service.settings import Settings
from worker.outages import DATABASE_OUTAGES, describe_outage

_log = get_logger(__name__)
_LOOK_SECONDS = 1.0  # how soon a cancel is seen
_JOIN_SECONDS = 5.0
_TRUSTED_SHARE = 0.95  # of the lease: the rest is for killing the attempt before anybody may take its job


class LeaseNews(Enum):
    """What the keeper has to say, at most once each."""

    CANCEL_REQUESTED = auto()
    JOB_ENDED = auto()  # the attempt itself has brought its job to an end
    LEASE_GONE = auto()  # the job is no longer this attempt's


class LeaseKeeper:
    """Renews the lease of one attempt each `settings.heartbeat_seconds` and tells `report` the news.

    While the database is away it keeps trying; `trusted_until` then stops moving, and whoever supervises the attempt
    must have ended it by that moment.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        claim: Claim,
        claimed_at: float,
        report: Callable[[LeaseNews], None],
    ) -> None:
        self._database = database
        self._settings = settings
        self._claim = claim
        self._report = report
        self._lease_from = claimed_at  # before the statement that set the lease was sent: never later than the truth
        self._booked_until = time.monotonic()
        self._cancel_reported = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    @property
    def trusted_until(self) -> float:
        """The moment of `time.monotonic()` until which nobody else can have taken the job."""
        return self._lease_from + self._settings.lease_seconds * _TRUSTED_SHARE

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; waits for the statement at hand, but not for one that hangs."""
        self._stopped.set()
        self._thread.join(_JOIN_SECONDS)

    def take_unbooked_seconds(self) -> float:
        """Return the time spent since it was last booked; the caller books it."""
        return time.monotonic() - self._booked_until

    def _run(self) -> None:
        heartbeat = self._settings.heartbeat_seconds
        while not self._stopped.wait(min(_LOOK_SECONDS, heartbeat)):
            is_due = time.monotonic() - self._lease_from >= heartbeat
            try:
                status = self._renew() if is_due else self._look()
            except StaleAttemptError:
                self._report(self._explain_refusal())
                return
            except DATABASE_OUTAGES as exc:
                _log.warning("the lease cannot be renewed; trying again", reason=describe_outage(exc))
                continue
            if status.cancel_requested and not self._cancel_reported:
                self._cancel_reported = True
                self._report(LeaseNews.CANCEL_REQUESTED)

    def _renew(self) -> LeaseStatus:
        now = time.monotonic()
        claim, settings = self._claim, self._settings
        with self._database.write() as session:
            status = AttemptRepository(session).renew(
                claim.job_id, claim.attempt, settings.lease_seconds, now - self._booked_until
            )
        self._lease_from = self._booked_until = now
        return status

    def _look(self) -> LeaseStatus:
        with self._database.read() as session:
            return AttemptRepository(session).get_lease(self._claim.job_id, self._claim.attempt)

    def _explain_refusal(self) -> LeaseNews:
        try:
            with self._database.read() as session:
                is_final = AttemptRepository(session).is_final(self._claim.job_id, self._claim.attempt)
        except DATABASE_OUTAGES:
            is_final = False
        return LeaseNews.JOB_ENDED if is_final else LeaseNews.LEASE_GONE
