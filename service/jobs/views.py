"""From rows of the job tables to what users see."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from service.jobs.schemas import Job, JobEvent, JobFailure, JobTimes, MetricPoint
from service.jobs.state import JobState, Phase
from service.jobs.tables import EventTable, JobTable, MetricTable


def read_time(seconds: float) -> datetime:
    """Return seconds since the epoch as a time in UTC, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def view_job(job: JobTable, labels: Mapping[str, str], queue_position: int | None) -> Job:
    """Return the job as users see it."""
    document = json.loads(job.document)
    return Job(
        id=job.id,
        name=job.name,
        state=JobState(job.state),
        phase=Phase(job.phase) if job.phase is not None else None,
        progress=min(max(job.progress, 0.0), 1.0),
        rate=job.rate,
        rate_unit=job.rate_unit,
        eta_seconds=job.eta_seconds,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        queue_position=queue_position,
        times=_view_times(job),
        error=_view_error(job),
        labels=dict(labels),
        task=document["task"],
        document=document,
        document_digest=job.document_digest,
    )


def view_event(event: EventTable) -> JobEvent:
    """Return the event as users see it."""
    return JobEvent(
        id=event.id,
        attempt=event.attempt,
        kind=event.kind,
        message=event.message,
        created_at=read_time(event.created_at),
    )


def view_metric(point: MetricTable) -> MetricPoint:
    """Return one point of the curves as users see it."""
    return MetricPoint.model_validate(point, from_attributes=True)


def _view_times(job: JobTable) -> JobTimes:
    names = JobTimes.model_fields
    moments = {name: getattr(job, name) for name in names}
    return JobTimes(**{name: read_time(at) for name, at in moments.items() if at is not None})


def _view_error(job: JobTable) -> JobFailure | None:
    if job.error_code is None:
        return None
    return JobFailure(code=job.error_code, message=job.error_message or "", hint=job.error_hint)
