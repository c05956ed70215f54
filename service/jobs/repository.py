"""Queries about jobs as users see them: add, get, list, cancel, resume, delete."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service.db.base import db_now
from service.db.statements import count_changed
from service.errors import ForbiddenTransitionError, NotFoundError
from service.jobs.state import CANCELLABLE_STATES, FINAL_STATES, RESUMABLE_STATES, JobState
from service.jobs.tables import EventTable, JobLabelTable, JobTable, MetricTable, OutboxTable


def make_job_id() -> str:
    """Return a new id; ids sort by the time they were made."""
    return f"job_{int(time.time() * 1000):011x}{secrets.token_hex(5)}"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is stored when a document is accepted. `document` is its canonical JSON."""

    document: str
    document_digest: str
    max_attempts: int
    max_seconds: float
    name: str | None = None
    idempotency_key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; every given condition must hold."""

    states: Sequence[str] = ()
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class JobRepository:
    """The job table for the API. Call inside a transaction of `Database.write` or `Database.read`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, new: NewJob) -> JobTable:
        """Store a job, its labels, its first event and its announcement."""
        job = JobTable(
            id=make_job_id(),
            name=new.name,
            document=new.document,
            document_digest=new.document_digest,
            idempotency_key=new.idempotency_key,
            max_attempts=new.max_attempts,
            max_seconds=new.max_seconds,
        )
        self._session.add(job)
        self._session.flush()
        self._session.add_all(JobLabelTable(job_id=job.id, key=k, value=v) for k, v in new.labels.items())
        announce(self._session, job.id, 0, "queued")
        self._session.flush()
        self._session.refresh(job)
        return job

    def find_by_idempotency_key(self, key: str) -> JobTable | None:
        """Return the job that was submitted with this key, or None."""
        return self._session.scalar(select(JobTable).where(JobTable.idempotency_key == key))

    def get(self, job_id: str) -> JobTable:
        """Return the job. Raises NotFoundError."""
        job = self._session.get(JobTable, job_id, populate_existing=True)
        if job is None:
            raise NotFoundError("job", job_id)
        return job

    def list(self, wanted: JobFilter, *, before_id: str | None, limit: int) -> Sequence[JobTable]:
        """Return up to `limit` jobs, newest first, older than `before_id`."""
        query = select(JobTable).order_by(JobTable.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(JobTable.id < before_id)
        if wanted.states:
            query = query.where(JobTable.state.in_(wanted.states))
        if wanted.name is not None:
            query = query.where(JobTable.name == wanted.name)
        for key, value in wanted.labels.items():
            query = query.where(
                select(JobLabelTable.job_id)
                .where(
                    JobLabelTable.job_id == JobTable.id,
                    JobLabelTable.key == key,
                    JobLabelTable.value == value,
                )
                .exists()
            )
        return self._session.scalars(query).all()

    def list_labels(self, job_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the labels of each job."""
        labels: dict[str, dict[str, str]] = {job_id: {} for job_id in job_ids}
        for row in self._session.scalars(
            select(JobLabelTable).where(JobLabelTable.job_id.in_(job_ids)).order_by(JobLabelTable.key)
        ):
            labels[row.job_id][row.key] = row.value
        return labels

    def count_ahead(self, job: JobTable) -> int:
        """Return how many queued jobs a worker would take before this one."""
        ahead = (JobTable.priority > job.priority) | ((JobTable.priority == job.priority) & (JobTable.id < job.id))
        query = select(func.count()).select_from(JobTable).where(JobTable.state == JobState.QUEUED, ahead)
        return self._session.scalar(query) or 0

    def count_states(self) -> dict[str, int]:
        """Return the number of jobs in each state that any job is in."""
        query = select(JobTable.state, func.count()).group_by(JobTable.state)
        return {row[0]: row[1] for row in self._session.execute(query)}

    def request_cancel(self, job_id: str) -> JobTable:
        """Cancel a queued job at once, or ask the attempt that holds it to stop.

        Raises:
            ForbiddenTransitionError: the job is already final. Asking twice is allowed.
        """
        # Locked, so that no worker takes the job or gives it back between the look and the write.
        job = self._session.get(JobTable, job_id, populate_existing=True, with_for_update=True)
        if job is None:
            raise NotFoundError("job", job_id)
        if job.state in {JobState.CANCELLING, JobState.CANCELLED}:
            return job
        if job.state not in CANCELLABLE_STATES:
            raise ForbiddenTransitionError(job_id, job.state, "cancel", CANCELLABLE_STATES)
        values: dict[str, Any] = {"cancel_requested": True, "cancelling_at": db_now()}
        if job.state == JobState.QUEUED:
            values |= {"state": JobState.CANCELLED, "finished_at": db_now()}
            message = "cancelled before it began" if job.attempt == 0 else "cancelled while queued"
        else:
            values["state"] = JobState.CANCELLING
            message = "cancel requested"
        self._session.execute(update(JobTable).where(JobTable.id == job_id).values(**values))
        add_event(self._session, job_id, job.attempt, "state", message)
        return self.get(job_id)

    def resume(self, job_id: str) -> JobTable:
        """Queue a failed or cancelled job again; it goes on from its last checkpoint.

        Raises:
            ForbiddenTransitionError: the job is not failed or cancelled.
        """
        resumed = count_changed(
            self._session,
            update(JobTable)
            .where(JobTable.id == job_id, JobTable.state.in_(RESUMABLE_STATES))
            .values(
                state=JobState.QUEUED,
                queued_at=db_now(),
                finished_at=None,
                cancelling_at=None,
                cancel_requested=False,
                lost_attempts=0,
                used_seconds=0.0,
                error_code=None,
                error_message=None,
                error_hint=None,
            ),
        )
        job = self.get(job_id)
        if not resumed:
            raise ForbiddenTransitionError(job_id, job.state, "resume", RESUMABLE_STATES)
        announce(self._session, job_id, job.attempt, "queued again by request")
        return job

    def delete(self, job_id: str) -> None:
        """Remove a final job and all that belongs to it.

        Raises:
            ForbiddenTransitionError: the job is queued or held by a worker.
        """
        removed = count_changed(
            self._session, delete(JobTable).where(JobTable.id == job_id, JobTable.state.in_(FINAL_STATES))
        )
        if not removed:
            raise ForbiddenTransitionError(job_id, self.get(job_id).state, "delete", FINAL_STATES)

    def list_events(self, job_id: str, *, after_id: int = 0, limit: int = 1000) -> Sequence[EventTable]:
        """Return up to `limit` events after `after_id`, oldest first."""
        return self._session.scalars(
            select(EventTable)
            .where(EventTable.job_id == job_id, EventTable.id > after_id)
            .order_by(EventTable.id)
            .limit(limit)
        ).all()

    def list_metrics(self, job_id: str) -> Sequence[MetricTable]:
        """Return the whole series of a job, by step. Writers keep it to about a thousand points."""
        return self._session.scalars(
            select(MetricTable).where(MetricTable.job_id == job_id).order_by(MetricTable.step)
        ).all()


def announce(session: Session, job_id: str, attempt: int, message: str) -> None:
    """Write the announcement of a queued job and the event that says why it is queued."""
    session.add(OutboxTable(job_id=job_id))
    add_event(session, job_id, attempt, "state", message)


def add_event(session: Session, job_id: str, attempt: int, kind: str, message: str) -> None:
    """Write one event. The caller has updated the job's row in this transaction, so ids follow commits."""
    session.add(EventTable(job_id=job_id, attempt=attempt, kind=kind, message=message))
