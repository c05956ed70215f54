"""What endpoints and pages are given. The services are made once, by `create_app`, and kept on the application."""

from typing import Annotated

from fastapi import Depends, Request

from service.jobs.service import JobService
from service.results.service import ResultService
from service.settings import Settings


def get_settings(request: Request) -> Settings:
    """Return the settings of this application."""
    settings: Settings = request.app.state.settings
    return settings


def get_job_service(request: Request) -> JobService:
    """Return the service for jobs."""
    service: JobService = request.app.state.jobs
    return service


def get_result_service(request: Request) -> ResultService:
    """Return the service for results."""
    service: ResultService = request.app.state.results
    return service


SettingsDep = Annotated[Settings, Depends(get_settings)]
JobServiceDep = Annotated[JobService, Depends(get_job_service)]
ResultServiceDep = Annotated[ResultService, Depends(get_result_service)]
