"""`/v1/jobs/{id}`: summary, examples, manifest and bundle of a finished job."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.dependencies import ResultServiceDep
from service.jobs.endpoints import JobId, Text
from service.results.downloads import answer_file
from service.results.examples import ExampleQuery
from service.results.exports import MEDIA_TYPES
from service.results.schemas import ExamplePage, Summary
from service.results.service import MANIFEST_FILES

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])

KeepFraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
SortName = Literal[
    "row", "weight", "score", "noise_score", "label_confidence", "rank",
    "-row", "-weight", "-score", "-noise_score", "-label_confidence", "-rank",
]  # fmt: skip
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def _describe_files(*names: str) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPES[name].partition(";")[0]: _BINARY for name in names}
    return {
        200: {"content": content, "description": "the whole file"},
        206: {"content": content, "description": "the range asked for"},
        304: {"description": "the caller has this version already"},
    }


class SelectionQuery(BaseModel):
    """At which keep fraction."""

    model_config = ConfigDict(extra="forbid")

    keep_fraction: KeepFraction | None = Field(
        None, description="share of all curated rows to keep; left out: the job's own selection"
    )


class PageQuery(SelectionQuery):
    """Which rows, in which order."""

    sort: SortName = Field("row", description="a column, with '-' before it for descending")
    class_name: Text | None = Field(None, alias="class", description="rows with this given label")
    kept: bool | None = Field(None, description="kept rows alone, or dropped rows alone")
    corrected: bool | None = Field(None, description="rows with another label than the given one, or the others")
    source: Text | None = Field(None, description="rows of this source")
    cursor: str | None = None
    limit: int = Field(50, ge=1, le=1000)


class ManifestQuery(SelectionQuery):
    """In which format, at which keep fraction."""

    format: Literal["parquet", "csv", "jsonl", "npy"] = Field("parquet", description="npy: the kept row numbers alone")


@router.get("/summary")
def get_summary(job_id: JobId, query: Annotated[SelectionQuery, Query()], results: ResultServiceDep) -> Summary:
    """Return histograms, keep rates by class and source, the evaluation with its intervals, and the verdict."""
    return results.summary(job_id, keep_fraction=query.keep_fraction)


@router.get("/examples")
def list_examples(job_id: JobId, query: Annotated[PageQuery, Query()], results: ResultServiceDep) -> ExamplePage:
    """Return per-example results over all rows, page by page."""
    wanted = ExampleQuery(
        sort=query.sort,
        class_name=query.class_name,
        kept=query.kept,
        corrected=query.corrected,
        source=query.source,
        cursor=query.cursor,
        limit=query.limit,
    )
    return results.list_examples(job_id, wanted, keep_fraction=query.keep_fraction)


@router.get(
    "/examples/{row}/image",
    response_class=Response,
    responses={200: {"content": {"image/png": _BINARY, "image/jpeg": _BINARY}}},
)
def get_image(job_id: JobId, row: Annotated[int, Path(ge=0, le=2**63 - 1)], results: ResultServiceDep) -> Response:
    """Return the small image of one of the examples that pages show."""
    image = results.get_image(job_id, row)
    return Response(image.data, media_type=image.media_type, headers={"Cache-Control": "private, max-age=3600"})


@router.head("/manifest", include_in_schema=False)
@router.get("/manifest", response_class=Response, responses=_describe_files(*MANIFEST_FILES.values()))
def get_manifest(
    request: Request, job_id: JobId, query: Annotated[ManifestQuery, Query()], results: ResultServiceDep
) -> Response:
    """Return one row for each curated example, kept and dropped, at any keep fraction; ranges are honoured."""
    file = results.export_manifest(job_id, query.format, keep_fraction=query.keep_fraction)
    return answer_file(request, file, f"{job_id}-{file.file_name}")


@router.head("/bundle", include_in_schema=False)
@router.get("/bundle", response_class=Response, responses=_describe_files("bundle.tar"))
def get_bundle(
    request: Request, job_id: JobId, query: Annotated[SelectionQuery, Query()], results: ResultServiceDep
) -> Response:
    """Return all files of the bundle as one uncompressed tar; ranges are honoured."""
    file = results.export_file(job_id, "bundle.tar", keep_fraction=query.keep_fraction)
    return answer_file(request, file, f"{job_id}.tar")


@router.head("/bundle/{file_name}", include_in_schema=False)
@router.get("/bundle/{file_name}", response_class=Response, responses=_describe_files(*MEDIA_TYPES))
def get_bundle_file(
    request: Request,
    job_id: JobId,
    file_name: str,
    query: Annotated[SelectionQuery, Query()],
    results: ResultServiceDep,
) -> Response:
    """Return one file of the bundle; ranges are honoured, so that a broken download can go on."""
    file = results.export_file(job_id, file_name, keep_fraction=query.keep_fraction)
    return answer_file(request, file, file.file_name)
