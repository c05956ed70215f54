"""Queries about the results of finished jobs."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.jobs.repository import JobRepository
from service.jobs.tables import JobTable
from service.results.tables import ChunkTable, ExportTable, InfluencesTable, PreviewTable, ResultTable


class ResultRepository:
    """The result tables for the API. Call inside a transaction of `Database.write` or `Database.read`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, job_id: str) -> tuple[JobTable, ResultTable]:
        """Return the job and its result.

        Raises:
            NotFoundError: there is no such job.
            ServiceError: `results_not_ready`; the job has not succeeded.
        """
        job = JobRepository(self._session).get(job_id)
        result = self._session.get(ResultTable, job_id)
        if result is None or result.attempt != job.result_attempt:
            raise ServiceError(
                "results_not_ready",
                f"Job {job_id} is {job.state}; results are there once it has succeeded.",
                param="state",
                hint=f"Watch /v1/jobs/{job_id}/events until the job has succeeded.",
            )
        return job, result

    def find_next_chunk(self, result: ResultTable, *, after_index: int, first_row: int) -> ChunkTable | None:
        """Return the first chunk behind `after_index` that holds `first_row` or later rows, or None."""
        query = (
            select(ChunkTable)
            .where(
                ChunkTable.job_id == result.job_id,
                ChunkTable.attempt == result.attempt,
                ChunkTable.index > after_index,
                ChunkTable.row_start + ChunkTable.num_rows > first_row,
            )
            .order_by(ChunkTable.index)
            .limit(1)
        )
        return self._session.scalar(query)

    def list_previews(
        self, result: ResultTable, *, limit: int, corrected: bool | None = None, kept: bool | None = None
    ) -> Sequence[PreviewTable]:
        """Return up to `limit` previews, most suspicious first; all, or those with or without a corrected label."""
        query = (
            select(PreviewTable)
            .where(PreviewTable.job_id == result.job_id, PreviewTable.attempt == result.attempt)
            .order_by(PreviewTable.suspicion_rank, PreviewTable.row)
            .limit(limit)
        )
        if corrected is not None:
            query = query.where(PreviewTable.corrected == corrected)
        if kept is not None:
            query = query.where(PreviewTable.keep == kept)
        return self._session.scalars(query).all()

    def get_preview(self, result: ResultTable, row: int) -> PreviewTable:
        """Return the preview of one row. Raises ServiceError `not_found` where it has none."""
        preview = self._session.get(PreviewTable, (result.job_id, result.attempt, row))
        if preview is None:
            raise ServiceError("not_found", f"Row {row} of job {result.job_id} has no preview.", param="row")
        return preview

    def find_influences(self, result: ResultTable) -> InfluencesTable | None:
        """Return the influences that were traced, or None."""
        return self._session.get(InfluencesTable, (result.job_id, result.attempt))

    def find_export(self, job_id: str, file_name: str, num_kept: int) -> ExportTable | None:
        """Return what was exported before, or None."""
        return self._session.get(ExportTable, (job_id, file_name, num_kept))

    def put_export(self, export: ExportTable) -> None:
        """Remember an export; a new one takes the place of an old one."""
        self._session.merge(export)

    def list_export_digests(self, job_id: str) -> set[str]:
        """Return the digests of all files exported from a job."""
        return set(self._session.scalars(select(ExportTable.sha256).where(ExportTable.job_id == job_id)))

    def find_used_digests(self, digests: Collection[str]) -> set[str]:
        """Return those of the digests that some job's export still has."""
        query = select(ExportTable.sha256).where(ExportTable.sha256.in_(digests))
        return set(self._session.scalars(query))
