"""Jobs as users see them: what the API answers, the client parses and pages show."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.jobs.state import JobState, Phase


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProblemItem(_Schema):
    """One fault of a document or of the data it names."""

    param: str = Field(description="path of the field at fault, such as dataset.label")
    seen: str
    wanted: str
    message: str
    nearest: str | None = Field(None, description="the closest valid name, where there is one")


class ProblemDocument(_Schema):
    """Every error answer (RFC 9457, application/problem+json)."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable and machine-readable")
    param: str | None = Field(None, description="the field at fault")
    hint: str | None = Field(None, description="what to do about it")
    request_id: str
    problems: list[ProblemItem] = Field(default_factory=list)


class JobTimes(_Schema):
    """When the job entered each state for the last time (UTC); null where it has not."""

    created_at: datetime
    queued_at: datetime
    validating_at: datetime | None = None
    running_at: datetime | None = None
    evaluating_at: datetime | None = None
    cancelling_at: datetime | None = None
    finished_at: datetime | None = Field(None, description="succeeded, failed or cancelled")


class JobFailure(_Schema):
    """Why a job failed."""

    code: str
    message: str
    hint: str | None = None


class Job(_Schema):
    """One request for curation and where it stands."""

    id: str
    name: str | None
    state: JobState
    phase: Phase | None = Field(description="what the attempt is doing; the last one it did where the job is final")
    progress: float = Field(ge=0, le=1, description="share of the whole job that is done")
    rate: float | None
    rate_unit: str | None
    eta_seconds: float | None
    attempt: int = Field(description="the attempt that holds or last held the job; 0 before the first")
    max_attempts: int
    queue_position: int | None = Field(description="1 is next; null unless the job is queued")
    times: JobTimes
    error: JobFailure | None
    labels: dict[str, str]
    task: str
    document: dict[str, Any] = Field(description="the job document with every default filled in")
    document_digest: str


class JobPage(_Schema):
    """Jobs, newest first, and the cursor of the next page."""

    items: list[Job]
    next_cursor: str | None


class JobEvent(_Schema):
    """Something that happened to a job, in words."""

    id: int
    attempt: int
    kind: str
    message: str
    created_at: datetime


class JobEventList(_Schema):
    """Events of a job, oldest first."""

    items: list[JobEvent]


class MetricPoint(_Schema):
    """One point of the training curves."""

    step: int
    base_loss: float | None
    meta_loss: float | None
    hypergradient_norm: float | None
    effective_sample_size: float | None = Field(description="(sum w)^2 / sum w^2 of a batch's weights, in examples")
    examples_per_second: float | None


class MetricList(_Schema):
    """The training curves of a job, by step."""

    items: list[MetricPoint]
