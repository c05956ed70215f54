"""Errors to HTTP: the one table from code to status, and the problem document of every failed request."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from service.errors import Problem, ServiceError
from service.jobs.document_names import show
from service.jobs.schemas import ProblemDocument, ProblemItem
from service.logging import get_logger
from service.plain_pages import render_page

_log = get_logger(__name__)

STATUS_OF_CODE: Mapping[str, HTTPStatus] = {
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "origin_not_allowed": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "forbidden_transition": HTTPStatus.CONFLICT,
    "results_not_ready": HTTPStatus.CONFLICT,
    "stale_attempt": HTTPStatus.CONFLICT,
    "payload_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "range_not_satisfiable": HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    "host_not_allowed": HTTPStatus.MISDIRECTED_REQUEST,
    "invalid_document": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_query": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_cursor": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_idempotency_key": HTTPStatus.UNPROCESSABLE_ENTITY,
    "idempotency_key_reused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "bad_request": HTTPStatus.BAD_REQUEST,
    "results_damaged": HTTPStatus.INTERNAL_SERVER_ERROR,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "not_ready": HTTPStatus.SERVICE_UNAVAILABLE,
    "database_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "storage_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
PROBLEM_MEDIA_TYPE = "application/problem+json"
_CODE_OF_STATUS = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}
_WANTED = re.compile(r"^(?:Input|Value|String|List) should (?:be |have )?")


def add_exception_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    app.add_exception_handler(ServiceError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_error)
    app.add_exception_handler(HTTPException, answer_error)


def answer_error(request: Request, error: Exception) -> Response:
    """Return the answer to a request that failed: problem+json, or a plain page where a browser asked for one."""
    known = _name_error(request, error)
    status = STATUS_OF_CODE.get(known.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    if known.code == "internal_error":
        _log.error("request failed", exc_info=error)
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("request failed", code=known.code, message=known.message)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    headers |= getattr(error, "headers", None) or {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    document = _build_document(request, known, status)
    if _wants_page(request):
        return render_page("problem.html", status.value, headers, problem=document)
    return JSONResponse(document.model_dump(), status.value, headers, media_type=PROBLEM_MEDIA_TYPE)


def _name_error(request: Request, error: Exception) -> ServiceError:
    """Return what may be said of an error; an unknown one says nothing of itself."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        return _name_invalid_request(error.errors())
    if isinstance(error, HTTPException):
        return _name_http_error(request, error)
    if isinstance(error, PoolTimeoutError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return _DATABASE_AWAY
    if isinstance(error, DBAPIError) and type(error).__name__ in {"OperationalError", "InterfaceError"}:
        return _DATABASE_AWAY
    return ServiceError(
        "internal_error",
        "The server failed on this request; it is not the request's fault.",
        hint="Try again; if it stays, give the request_id to whoever runs the server.",
    )


_DATABASE_AWAY = ServiceError("database_unavailable", "The database does not answer.", hint="Try again in a moment.")


def _name_http_error(request: Request, error: HTTPException) -> ServiceError:
    status = HTTPStatus(error.status_code)
    route = f"{request.method} {request.url.path[:200]}"
    if status == HTTPStatus.NOT_FOUND:
        return ServiceError("not_found", f"There is no route {route}.", hint="The routes stand in /openapi.json.")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        return ServiceError("method_not_allowed", f"There is no route {route}; wanted {allowed}.", param="method")
    return ServiceError(_CODE_OF_STATUS.get(status, "bad_request"), f"The request is malformed: {error.detail}.")


def _name_invalid_request(errors: Sequence[Any]) -> ServiceError:
    problems = [_name_problem(error) for error in errors]
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return ServiceError(
        "invalid_query",
        problems[0].message + more,
        param=problems[0].param,
        hint="The parameters of each route stand in /openapi.json.",
        problems=problems,
    )


def _name_problem(error: Mapping[str, Any]) -> Problem:
    place = [str(step) for step in error["loc"][1:]]
    param = ".".join(place) or str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        wanted = "a parameter of this route"
        return Problem(param, show(error["input"]), wanted, f"{param} is not {wanted}.")
    wanted = _WANTED.sub("", str(error["msg"]).removeprefix("Value error, ")).partition(", unable")[0]
    seen = show(error["input"])
    return Problem(param, seen, wanted, f"{param} is {seen}; wanted {wanted}.")


def _build_document(request: Request, error: ServiceError, status: HTTPStatus) -> ProblemDocument:
    return ProblemDocument(
        type=f"urn:sama:problem:{error.code}",
        title=status.phrase,
        status=status,
        detail=error.message,
        code=error.code,
        param=error.param,
        hint=error.hint,
        request_id=request.state.request_id,
        problems=[ProblemItem(**problem.as_dict()) for problem in error.problems],
    )


def _wants_page(request: Request) -> bool:
    return not request.url.path.startswith("/v1") and "text/html" in request.headers.get("accept", "")
