"""`/v1/jobs`: submit, list, look at and steer jobs."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.bodies import DocumentText
from service.datasets.schemas import InspectionReport
from service.dependencies import JobServiceDep
from service.errors import NotFoundError, ServiceError
from service.jobs.document import read_document
from service.jobs.repository import JobFilter
from service.jobs.schemas import Job, JobPage, MetricList
from service.jobs.service import JOB_ID
from service.jobs.state import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Text = Annotated[str, Field(max_length=400)]
_DOCUMENT_SCHEMA = {"schema": {"$ref": "#/components/schemas/JobDocument"}}
_SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": _DOCUMENT_SCHEMA, "application/yaml": _DOCUMENT_SCHEMA},
    }
}


class SubmitQuery(BaseModel):
    """How to take the document."""

    model_config = ConfigDict(extra="forbid")

    validate_only: bool = Field(False, description="check the document and open its data, but make no job")


class JobQuery(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(extra="forbid")

    state: list[JobState] = Field(default_factory=list, description="any of these states")
    label: list[Text] = Field(default_factory=list, description="KEY:VALUE; every one given must hold")
    name: Text | None = None
    cursor: str | None = None
    limit: int = Field(50, ge=1, le=200)


def read_job_id(job_id: str) -> str:
    """Return the id in the path. Raises NotFoundError where no job can have it."""
    if not JOB_ID.fullmatch(job_id):
        raise NotFoundError("job", job_id[:80])
    return job_id


JobId = Annotated[str, Depends(read_job_id)]


@router.post(
    "",
    status_code=202,
    response_model=Job,
    responses={200: {"model": InspectionReport, "description": "with validate_only: what the data holds"}},
    openapi_extra=_SUBMIT_BODY,
)
def submit_job(
    text: DocumentText,
    query: Annotated[SubmitQuery, Query()],
    jobs: JobServiceDep,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Submit a job document in JSON or YAML.

    The answer comes once the job is stored. The same Idempotency-Key with the same document gives the same job
    again, with the header `Idempotent-Replay: true`; with another document it is refused.
    """
    data = read_document(text)
    if query.validate_only:
        return answer_json(jobs.validate(data))
    submission = jobs.submit(data, idempotency_key=idempotency_key)
    headers = {"Location": f"/v1/jobs/{submission.job.id}"}
    if submission.replayed:
        headers["Idempotent-Replay"] = "true"
    return answer_json(submission.job, 202, headers)


@router.get("")
def list_jobs(query: Annotated[JobQuery, Query()], jobs: JobServiceDep) -> JobPage:
    """List jobs, newest first, page by page."""
    wanted = JobFilter(states=query.state, name=query.name, labels=dict(_read_labels(query.label)))
    return jobs.list(wanted, cursor=query.cursor, limit=query.limit)


@router.get("/{job_id}")
def get_job(job_id: JobId, jobs: JobServiceDep) -> Job:
    """Return one job: state, times, phase, progress, rate, time left, queue position, error."""
    return jobs.get(job_id)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: JobId, jobs: JobServiceDep) -> Job:
    """Cancel a queued job at once, or ask the attempt that holds it to stop. Asking twice is allowed."""
    return jobs.cancel(job_id)


@router.post("/{job_id}/resume")
def resume_job(job_id: JobId, jobs: JobServiceDep) -> Job:
    """Queue a failed or cancelled job again; it goes on from its last checkpoint."""
    return jobs.resume(job_id)


@router.delete("/{job_id}", status_code=204)
def delete_job(job_id: JobId, jobs: JobServiceDep) -> None:
    """Remove a final job, its results, exports and checkpoints."""
    jobs.delete(job_id)


@router.get("/{job_id}/metrics")
def list_metrics(job_id: JobId, jobs: JobServiceDep) -> MetricList:
    """Return the training curves: base loss, meta loss, hypergradient norm, effective sample size, throughput."""
    return MetricList(items=list(jobs.list_metrics(job_id)))


def answer_json(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a schema as a JSON answer."""
    return Response(body.model_dump_json(), status, headers, media_type="application/json")


def _read_labels(texts: list[str]) -> Iterator[tuple[str, Any]]:
    for text in texts:
        # No key holds a colon or an equals sign, so either may stand between key and value.
        at = min((text.find(mark) for mark in ":=" if mark in text), default=-1)
        if at <= 0:
            raise ServiceError(
                "invalid_query", f"label is {text[:80]!r}; wanted KEY:VALUE, such as team:ads.", param="label"
            )
        yield text[:at], text[at + 1 :]
