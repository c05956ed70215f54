"""What users may ask about the results of a finished job."""

from dataclasses import dataclass

from service.db.engine import Database
from service.errors import ServiceError
from service.results.chunks import RowReader
from service.results.examples import ExampleQuery, list_page
from service.results.exports import Exporter, check_file_name
from service.results.files import EXPORTS, ExportedFile, ExportStore
from service.results.repository import ResultRepository
from service.results.rows import count_kept
from service.results.schemas import ExamplePage, Preview, Summary
from service.results.selection import select_again
from service.results.tables import PreviewTable, ResultTable
from service.settings import Settings

MANIFEST_FILES = {"parquet": "rows.parquet", "csv": "rows.csv", "jsonl": "rows.jsonl", "npy": "keep.npy"}
IMAGE_TYPES = ("image/png", "image/jpeg")


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """A small image of one example."""

    data: bytes
    media_type: str


class ResultService:
    """Look at results and take them home. Every method raises NotFoundError where there is no such job, and
    ServiceError `results_not_ready` where the job has not succeeded."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._store = ExportStore(settings.data_dir / EXPORTS)

    def summary(self, job_id: str, *, keep_fraction: float | None = None) -> Summary:
        """Return the summary; with `keep_fraction`, selection and keep rates as they would be at that fraction."""
        result = self._get_result(job_id)
        summary = Summary.model_validate(result.summary)
        num_kept = _count_kept(result, keep_fraction)
        if num_kept == result.num_kept:
            return summary
        return select_again(summary, RowReader(self._database, result), num_kept)

    def list_examples(self, job_id: str, query: ExampleQuery, *, keep_fraction: float | None = None) -> ExamplePage:
        """Return one page of rows.

        Raises:
            ServiceError: `invalid_query` or `invalid_cursor`.
        """
        result = self._get_result(job_id)
        return list_page(RowReader(self._database, result), query, _count_kept(result, keep_fraction))

    def list_previews(
        self, job_id: str, *, limit: int = 100, corrected: bool | None = None, kept: bool | None = None
    ) -> list[Preview]:
        """Return the most suspicious examples with their previews, at the job's own keep fraction."""
        with self._database.read() as session:
            repository = ResultRepository(session)
            _, result = repository.get(job_id)
            found = repository.list_previews(result, limit=limit, corrected=corrected, kept=kept)
            return [view_preview(preview) for preview in found]

    def get_image(self, job_id: str, row: int) -> PreviewImage:
        """Return the small image of one row. Raises ServiceError `not_found` where the row has none."""
        with self._database.read() as session:
            repository = ResultRepository(session)
            _, result = repository.get(job_id)
            preview = repository.get_preview(result, row)
        if preview.image is None or preview.image_type not in IMAGE_TYPES:
            raise ServiceError("not_found", f"Row {row} of job {job_id} has no image.", param="row")
        return PreviewImage(preview.image, preview.image_type)

    def export_manifest(self, job_id: str, file_format: str, *, keep_fraction: float | None = None) -> ExportedFile:
        """Return the per-example table as parquet, csv or jsonl, or the kept rows as npy."""
        return self.export_file(job_id, MANIFEST_FILES[file_format], keep_fraction=keep_fraction)

    def export_file(self, job_id: str, file_name: str, *, keep_fraction: float | None = None) -> ExportedFile:
        """Return one file of the bundle, the whole bundle (`bundle.tar`), `rows.csv` or `rows.jsonl`.

        Made at the first request, the same bytes at every later one.

        Raises:
            ServiceError: `not_found`; there is no file of this name. `storage_unavailable`.
        """
        with self._database.read() as session:
            job, result = ResultRepository(session).get(job_id)
        check_file_name(file_name, result)
        exporter = Exporter(self._database, self._store, job, result, _count_kept(result, keep_fraction))
        return exporter.export(file_name)

    def _get_result(self, job_id: str) -> ResultTable:
        with self._database.read() as session:
            return ResultRepository(session).get(job_id)[1]


def view_preview(preview: PreviewTable) -> Preview:
    """Return the preview as users see it."""
    names = Preview.model_fields.keys() - {"has_image"}
    return Preview(**{name: getattr(preview, name) for name in names}, has_image=preview.image is not None)


def _count_kept(result: ResultTable, keep_fraction: float | None) -> int:
    if keep_fraction is None:
        return result.num_kept
    return count_kept(keep_fraction, result.num_rows, result.num_labelled)
