"""Claims, leases and fenced writes: every statement by which a worker touches a job."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import case, delete, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from service.attempts.state import Claim, ExpiredLease, Failure, LeaseStatus, MetricPoint, Progress
from service.db.base import db_now
from service.db.statements import count_changed
from service.errors import StaleAttemptError
from service.jobs.repository import add_event, announce
from service.jobs.state import FINAL_STATES, HELD_STATES, STATE_OF_PHASE, JobState, Phase
from service.jobs.tables import JobTable, MetricTable, OutboxTable
from service.results.tables import ChunkTable, InfluencesTable, PreviewTable, ResultTable


def fence(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that only the attempt which holds the job meets."""
    return (JobTable.id == job_id, JobTable.attempt == attempt, JobTable.state.in_(HELD_STATES))


def _read_claim(job: JobTable) -> Claim:
    return Claim(
        job_id=job.id,
        attempt=job.attempt,
        document=job.document,
        max_seconds=job.max_seconds,
        used_seconds=job.used_seconds,
        checkpoint_path=job.checkpoint_path,
        checkpoint_step=job.checkpoint_step,
    )


class AttemptRepository:
    """The job table for workers. Call inside a transaction of `Database.write`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def claim(self, worker_id: str, lease_seconds: float) -> Claim | None:
        """Take the first queued job, or None. One conditional update: two workers never take the same job."""
        first = (
            select(JobTable.id)
            .where(JobTable.state == JobState.QUEUED)
            .order_by(JobTable.priority.desc(), JobTable.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(JobTable)
            .where(JobTable.id == first, JobTable.state == JobState.QUEUED)
            .values(
                state=JobState.VALIDATING,
                attempt=JobTable.attempt + 1,
                worker_id=worker_id,
                lease_expires_at=db_now() + lease_seconds,
                validating_at=db_now(),
                phase=None,
                progress=0.0,
                rate=None,
                rate_unit=None,
                eta_seconds=None,
            )
            .returning(JobTable)
            .execution_options(populate_existing=True)
        )
        job = self._session.scalars(statement).one_or_none()
        if job is None:
            return None
        # Whoever claims a job has heard of it: its announcement, if still unsent, is obsolete.
        self._session.execute(delete(OutboxTable).where(OutboxTable.job_id == job.id))
        add_event(
            self._session,
            job.id,
            job.attempt,
            "state",
            f"attempt {job.attempt} claimed by worker {worker_id}",
        )
        return _read_claim(job)

    def get_claim(self, job_id: str, attempt: int) -> Claim:
        """Return the claim that this attempt holds. Raises StaleAttemptError."""
        job = self._session.scalar(select(JobTable).where(*fence(job_id, attempt)))
        if job is None:
            raise StaleAttemptError(job_id, attempt)
        return _read_claim(job)

    def hold(self, job_id: str, attempt: int, **values: Any) -> None:
        """Set columns of the job if this attempt holds it; the first statement of every fenced transaction.

        Raises:
            StaleAttemptError: the attempt does not hold the job; the transaction must be rolled back.
        """
        statement = update(JobTable).where(*fence(job_id, attempt)).values(**(values or {"attempt": attempt}))
        if not count_changed(self._session, statement):
            raise StaleAttemptError(job_id, attempt)

    def renew(self, job_id: str, attempt: int, lease_seconds: float, elapsed_seconds: float) -> LeaseStatus:
        """Renew the lease and book the time spent since the last renewal. Raises StaleAttemptError."""
        self.hold(
            job_id,
            attempt,
            lease_expires_at=db_now() + lease_seconds,
            used_seconds=JobTable.used_seconds + elapsed_seconds,
        )
        return self.get_lease(job_id, attempt)

    def get_lease(self, job_id: str, attempt: int) -> LeaseStatus:
        """Return what the job's row says to the attempt that holds it. Raises StaleAttemptError."""
        row = self._session.execute(
            select(JobTable.cancel_requested, JobTable.used_seconds, JobTable.phase).where(*fence(job_id, attempt))
        ).one_or_none()
        if row is None:
            raise StaleAttemptError(job_id, attempt)
        return LeaseStatus(cancel_requested=row.cancel_requested, used_seconds=row.used_seconds, phase=row.phase)

    def is_final(self, job_id: str, attempt: int) -> bool:
        """Say whether this attempt was the job's last one so far and the job has ended."""
        query = select(JobTable.id).where(
            JobTable.id == job_id, JobTable.attempt == attempt, JobTable.state.in_(FINAL_STATES)
        )
        return self._session.scalar(query) is not None

    def enter_phase(self, job_id: str, attempt: int, phase: Phase, message: str) -> None:
        """Say which phase has begun; the job's state follows it unless a cancel is under way."""
        values: dict[str, Any] = {"phase": phase, "rate": None, "rate_unit": None}
        state = STATE_OF_PHASE.get(phase)
        if state is not None:
            values["state"] = case((JobTable.state == JobState.CANCELLING, JobTable.state), else_=str(state))
            values[f"{state}_at"] = db_now()
        self.hold(job_id, attempt, **values)
        add_event(self._session, job_id, attempt, "phase", message)

    def record(
        self,
        job_id: str,
        attempt: int,
        *,
        progress: Progress | None = None,
        metrics: Sequence[MetricPoint] = (),
        events: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Write progress, metrics and events (kind, message) in one fenced transaction."""
        self.hold(job_id, attempt, **(asdict(progress) if progress else {}))
        if metrics:
            steps = [point.step for point in metrics]
            self._session.execute(delete(MetricTable).where(MetricTable.job_id == job_id, MetricTable.step.in_(steps)))
            self._session.add_all(MetricTable(job_id=job_id, **asdict(point)) for point in metrics)
        for kind, message in events:
            add_event(self._session, job_id, attempt, kind, message)

    def drop_metrics_after(self, job_id: str, attempt: int, step: int) -> None:
        """Forget points that the attempt is about to compute again after a resume."""
        self.hold(job_id, attempt)
        self._session.execute(delete(MetricTable).where(MetricTable.job_id == job_id, MetricTable.step > step))

    def set_checkpoint(self, job_id: str, attempt: int, path: str, step: int) -> None:
        """Point the job at a checkpoint that is already safe on disk."""
        self.hold(job_id, attempt, checkpoint_path=path, checkpoint_step=step)

    def add_chunk(self, chunk: ChunkTable) -> None:
        """Store one chunk of results under the fence."""
        self.hold(chunk.job_id, chunk.attempt)
        self._session.add(chunk)

    def complete(
        self, result: ResultTable, previews: Sequence[PreviewTable], influences: InfluencesTable | None = None
    ) -> None:
        """Make the results visible and the job succeeded: the last transaction of an attempt.

        Raises:
            StaleAttemptError: the attempt does not hold the job, or a cancel came first.
        """
        job_id, attempt = result.job_id, result.attempt
        done = count_changed(
            self._session,
            update(JobTable)
            .where(*fence(job_id, attempt), JobTable.state != JobState.CANCELLING)
            .values(
                state=JobState.SUCCEEDED,
                result_attempt=attempt,
                finished_at=db_now(),
                progress=1.0,
                eta_seconds=0.0,
                lease_expires_at=None,
                worker_id=None,
            ),
        )
        if not done:
            raise StaleAttemptError(job_id, attempt)
        self._session.execute(delete(ResultTable).where(ResultTable.job_id == job_id))
        self._session.execute(delete(ChunkTable).where(ChunkTable.job_id == job_id, ChunkTable.attempt != attempt))
        self._session.add(result)
        self._session.add_all(previews)
        if influences is not None:
            self._session.add(influences)
        add_event(self._session, job_id, attempt, "state", "succeeded")

    def release(self, job_id: str, attempt: int, reason: str) -> None:
        """Give the job back to the queue; the attempt does not count against the limit."""
        self._leave(job_id, attempt, JobState.QUEUED, queued_at=db_now())
        announce(self._session, job_id, attempt, f"queued again: {reason}")

    def cancel(self, job_id: str, attempt: int) -> None:
        """End a job whose cancel was requested."""
        self._leave(job_id, attempt, JobState.CANCELLED, finished_at=db_now())
        add_event(self._session, job_id, attempt, "state", "cancelled")

    def fail(self, job_id: str, attempt: int, failure: Failure) -> JobState:
        """End the attempt: back to the queue where the failure is retryable and attempts are left, else failed.

        Returns the state the job is in now: queued, failed, or cancelled where a cancel was under way.
        """
        self.hold(job_id, attempt)
        job = self._session.execute(
            select(JobTable.state, JobTable.lost_attempts, JobTable.max_attempts).where(JobTable.id == job_id)
        ).one()
        if job.state == JobState.CANCELLING:
            self.cancel(job_id, attempt)
            return JobState.CANCELLED
        lost = job.lost_attempts + 1
        if failure.retryable and lost < job.max_attempts:
            self._leave(job_id, attempt, JobState.QUEUED, queued_at=db_now(), lost_attempts=lost)
            announce(
                self._session,
                job_id,
                attempt,
                f"queued again after attempt {attempt} ended ({lost} of {job.max_attempts} lost): {failure.message}",
            )
            return JobState.QUEUED
        self._leave(
            job_id,
            attempt,
            JobState.FAILED,
            finished_at=db_now(),
            lost_attempts=lost,
            error_code=failure.code,
            error_message=failure.message,
            error_hint=failure.hint,
        )
        add_event(self._session, job_id, attempt, "state", f"failed: {failure.message}")
        return JobState.FAILED

    def list_expired(self, limit: int = 100) -> Sequence[ExpiredLease]:
        """Return up to `limit` leases that ran out, longest ago first, locked against other sweeps."""
        query = (
            select(JobTable.id, JobTable.attempt, JobTable.worker_id)
            .where(JobTable.state.in_(HELD_STATES), JobTable.lease_expires_at < db_now())
            .order_by(JobTable.lease_expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [ExpiredLease(*row) for row in self._session.execute(query)]

    def _leave(self, job_id: str, attempt: int, state: JobState, **values: Any) -> None:
        self.hold(job_id, attempt, state=state, lease_expires_at=None, worker_id=None, eta_seconds=None, **values)
        self._session.execute(delete(ChunkTable).where(ChunkTable.job_id == job_id))
