"""`/v1/jobs/{id}/events`: what happens to a job, as Server-Sent Events or as a list."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from service.dependencies import JobServiceDep
from service.errors import NotFoundError, ServiceError
from service.jobs.endpoints import JobId, answer_json
from service.jobs.schemas import Job, JobEvent, JobEventList
from service.jobs.service import JobService
from service.jobs.state import FINAL_STATES

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_SECONDS = 0.4
HEARTBEAT_SECONDS = 15.0
_MAX_EVENT_ID = 2**63 - 1
_STREAM_TYPE = "text/event-stream"


@dataclass(slots=True)
class _Position:
    """How far one stream has come."""

    after_id: int
    spoke_at: float
    shown: str = ""


@router.get(
    "/{job_id}/events",
    response_model=JobEventList,
    responses={200: {"content": {_STREAM_TYPE: {"schema": {"type": "string"}}}}},
)
async def stream_events(
    request: Request,
    job_id: JobId,
    jobs: JobServiceDep,
    last_event_id: Annotated[str | None, Header(description="go on after this event")] = None,
) -> Response:
    """Follow a job.

    A stream has messages `event` (with an id; data: what happened) and `progress` (data: the job as it stands now),
    and ends with a last `progress` once the job is final. With `Accept: application/json` the events so far are
    returned as a list. Both go on after `Last-Event-ID`.
    """
    after_id = _read_event_id(last_event_id)
    if _wants_list(request.headers.get("accept", "")):
        return answer_json(
            JobEventList(items=list(await run_in_threadpool(jobs.list_events, job_id, after_id=after_id)))
        )
    # A job that does not exist is a 404, not a stream that ends at once.
    await run_in_threadpool(jobs.get, job_id)
    messages = follow_job(jobs, job_id, after_id, is_ended=request.app.state.is_stopping)
    return StreamingResponse(messages, media_type=_STREAM_TYPE, headers={"X-Accel-Buffering": "no"})


async def follow_job(
    jobs: JobService, job_id: str, after_id: int, *, is_ended: Callable[[], bool]
) -> AsyncIterator[str]:
    """Yield the messages of one stream until the job is final, is deleted, or the server stops.

    A caller that goes away cancels this generator at its next pause.
    """
    position = _Position(after_id, spoke_at=time.monotonic())
    while not is_ended():
        try:
            job, events = await run_in_threadpool(jobs.poll, job_id, after_id=position.after_id)
        except NotFoundError:
            return
        for message in _write_news(job, events, position):
            yield message
        if job.state in FINAL_STATES and not events:
            yield _write_message("progress", job.model_dump_json())
            return
        if not events:
            await asyncio.sleep(POLL_SECONDS)


def _write_news(job: Job, events: Sequence[JobEvent], position: _Position) -> Iterator[str]:
    now = time.monotonic()
    for event in events:
        position.after_id, position.spoke_at = event.id, now
        yield _write_message("event", event.model_dump_json(), event.id)
    standing = job.model_dump_json()
    if standing != position.shown and job.state not in FINAL_STATES:
        position.shown, position.spoke_at = standing, now
        yield _write_message("progress", standing)
    if now - position.spoke_at >= HEARTBEAT_SECONDS:
        position.spoke_at = now
        yield ": alive\n\n"


def _write_message(kind: str, data: str, event_id: int | None = None) -> str:
    number = f"id: {event_id}\n" if event_id is not None else ""
    # JSON escapes line breaks, so the data is one line.
    return f"event: {kind}\n{number}data: {data}\n\n"


def _read_event_id(text: str | None) -> int:
    if text is None or not text.strip():
        return 0
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= _MAX_EVENT_ID):
        raise ServiceError(
            "invalid_query",
            f"Last-Event-ID is {text[:50]!r}; wanted the id of an event of this job.",
            param="Last-Event-ID",
        )
    return int(text)


def _wants_list(accept: str) -> bool:
    return "application/json" in accept and _STREAM_TYPE not in accept
