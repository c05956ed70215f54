"""The description of the API, `/openapi.json`: the job document, the errors, and how to get in."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.exception_handlers import PROBLEM_MEDIA_TYPE
from service.jobs.document import JobDocument
from service.jobs.schemas import ProblemDocument

_REFERENCE = "#/components/schemas/{model}"
_PROBLEM = {
    "description": "What went wrong, with a stable code (RFC 9457).",
    "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model="ProblemDocument")}}},
}
_OPEN_PATHS = ("/healthz",)


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (JobDocument, ProblemDocument):
            schema = model.model_json_schema(by_alias=True, ref_template=_REFERENCE)
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        _describe_errors(document)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_errors(document: dict[str, Any]) -> None:
    """Say that every route may answer with a problem document, and which need no key."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _PROBLEM
            if path in _OPEN_PATHS:
                operation["security"] = []
