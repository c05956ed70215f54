"""The pages: jobs, and one job. They show what the services answer and decide nothing themselves."""

from typing import Annotated, Any, Literal

import yaml
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from service.dashboard.assets import answer_asset
from service.dashboard.curves import list_curves
from service.dashboard.rendering import render
from service.dependencies import JobServiceDep, ResultServiceDep
from service.errors import ServiceError
from service.jobs.repository import JobFilter
from service.jobs.schemas import Job, JobPage
from service.jobs.service import JobService
from service.jobs.state import FINAL_STATES, JobState

JOBS_ON_A_PAGE = 50
_NUM_PREVIEWS = 48

PreviewFilter = Literal["all", "corrected", "kept", "dropped"]
_PREVIEW_WORDS = {
    "all": "the most suspicious",
    "corrected": "with a corrected or new label",
    "kept": "kept",
    "dropped": "dropped",
}
_PREVIEW_CONDITIONS: dict[str, dict[str, bool]] = {
    "all": {},
    "corrected": {"corrected": True},
    "kept": {"kept": True},
    "dropped": {"kept": False},
}

KeepFraction = Annotated[float | None, Query(gt=0, le=1)]


class JobsQuery(BaseModel):
    """Which jobs to show; an empty field is no condition."""

    state: str = ""
    name: str = ""
    label: str = ""
    cursor: str = ""

    def build_filter(self) -> JobFilter:
        """Return the filter. Raises ServiceError `invalid_query`."""
        if self.state and self.state not in set(JobState):
            states = ", ".join(JobState)
            raise ServiceError("invalid_query", f"state is {self.state[:80]!r}; wanted one of {states}.", param="state")
        key, separator, value = self.label.partition("=")
        if self.label and not (key and separator):
            raise ServiceError("invalid_query", f"label is {self.label[:80]!r}; wanted key=value.", param="label")
        return JobFilter(
            states=[self.state] if self.state else [],
            name=self.name.strip() or None,
            labels={key: value} if self.label else {},
        )


JobsQueryDep = Annotated[JobsQuery, Query()]


def create_router() -> APIRouter:
    """Return the routes of the dashboard."""
    router = APIRouter(include_in_schema=False)
    router.get("/")(show_jobs)
    router.get("/live/jobs")(show_job_table)
    router.get("/jobs/{job_id}")(show_job)
    router.get("/live/jobs/{job_id}")(show_live_part)
    router.get("/jobs/{job_id}/images/{row}")(show_image)
    router.post("/jobs/{job_id}/cancel")(cancel_job)
    router.post("/jobs/{job_id}/resume")(resume_job)
    router.get("/static/{name}")(show_asset)
    return router


def show_jobs(request: Request, jobs: JobServiceDep, query: JobsQueryDep) -> Response:
    """Show one page of jobs, newest first. Raises ServiceError `invalid_query` or `invalid_cursor`."""
    return render("jobs.html", page=_list_jobs(jobs, query), chosen=query, query=request.url.query)


def show_job_table(jobs: JobServiceDep, query: JobsQueryDep) -> Response:
    """Return the table of jobs alone, as it is now. Raises ServiceError `invalid_query` or `invalid_cursor`."""
    return render("job_table.html", page=_list_jobs(jobs, query))


def show_job(
    job_id: str,
    jobs: JobServiceDep,
    results: ResultServiceDep,
    keep_fraction: KeepFraction = None,
    show: PreviewFilter = "all",
) -> Response:
    """Show one job: where it stands and, once it has succeeded, what it found. Raises NotFoundError."""
    values = _look(jobs, job_id)
    job: Job = values["job"]
    summary = previews = None
    if job.state == JobState.SUCCEEDED:
        summary = results.summary(job_id, keep_fraction=keep_fraction)
        previews = results.list_previews(job_id, limit=_NUM_PREVIEWS, **_PREVIEW_CONDITIONS[show])
    return render(
        "job.html",
        **values,
        summary=summary,
        previews=previews,
        keep_fraction=keep_fraction,
        show=show,
        preview_filters=_PREVIEW_WORDS,
        document=yaml.safe_dump(_drop_empty(job.document), sort_keys=False, allow_unicode=True),
    )


def show_live_part(job_id: str, jobs: JobServiceDep) -> Response:
    """Return the part of a job's page that changes while it runs. Raises NotFoundError."""
    return render("job_live.html", **_look(jobs, job_id))


def show_image(job_id: str, row: int, results: ResultServiceDep) -> Response:
    """Return the small image of one example. Raises NotFoundError."""
    image = results.get_image(job_id, row)
    return Response(image.data, media_type=image.media_type, headers={"Cache-Control": "private, max-age=3600"})


def cancel_job(job_id: str, jobs: JobServiceDep) -> Response:
    """Cancel a job and go back to its page. Raises NotFoundError, ForbiddenTransitionError."""
    jobs.cancel(job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


def resume_job(job_id: str, jobs: JobServiceDep) -> Response:
    """Queue a job again and go back to its page. Raises NotFoundError, ForbiddenTransitionError."""
    jobs.resume(job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


def show_asset(name: str, request: Request) -> Response:
    """Return a static file. Raises NotFoundError."""
    return answer_asset(name, request.headers.get("if-none-match"))


def _list_jobs(jobs: JobService, query: JobsQuery) -> JobPage:
    return jobs.list(query.build_filter(), cursor=query.cursor or None, limit=JOBS_ON_A_PAGE)


def _look(jobs: JobService, job_id: str) -> dict[str, Any]:
    """Return what both the page and its live part show."""
    job = jobs.get(job_id)
    curves = list_curves(jobs.list_metrics(job_id))
    return {"job": job, "curves": curves, "events": jobs.list_events(job_id), "stage": _name_stage(job)}


def _name_stage(job: Job) -> str:
    """Return what the actions of the page depend on: when it changes, the whole page is asked for again."""
    if job.state in FINAL_STATES:
        return "final"
    return "cancelling" if job.state == JobState.CANCELLING else "active"


def _drop_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the fields that say nothing; `evaluation: null` says that there is none."""
    kept = {name: _drop_empty(value) if isinstance(value, dict) else value for name, value in fields.items()}
    return {name: value for name, value in kept.items() if name == "evaluation" or value not in (None, {}, [])}
