"""The files of a finished job at a chosen selection: made once, found again by digest, always the same bytes."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import BinaryIO

from sqlalchemy.exc import IntegrityError

from service.db.engine import Database
from service.errors import ServiceError
from service.jobs.tables import JobTable
from service.logging import get_logger
from service.results.bundle import (
    INFLUENCES_FILE,
    SOFT_LABELS_FILE,
    build_manifest,
    build_sums,
    list_arrays,
    list_bundle_files,
    list_listed_files,
    list_tables,
    write_tar,
)
from service.results.chunks import RowReader
from service.results.croissant import build_croissant
from service.results.files import ExportedFile, ExportStore, StoredFile
from service.results.influences import read_influences
from service.results.report import NUM_REPORTED_PREVIEWS, build_report, list_suspects
from service.results.repository import ResultRepository
from service.results.row_files import (
    write_csv,
    write_jsonl,
    write_keep,
    write_parquet,
    write_soft_labels,
    write_weights,
)
from service.results.schemas import Summary
from service.results.selection import select_again
from service.results.tables import ExportTable, ResultTable

_log = get_logger(__name__)

MEDIA_TYPES = {
    "rows.parquet": "application/vnd.apache.parquet",
    "rows.csv": "text/csv; charset=utf-8",
    "rows.jsonl": "application/jsonl; charset=utf-8",
    "keep.npy": "application/octet-stream",
    "weights.npy": "application/octet-stream",
    SOFT_LABELS_FILE: "application/octet-stream",
    INFLUENCES_FILE: "application/vnd.apache.parquet",
    "croissant.json": "application/ld+json",
    "report.html": "text/html; charset=utf-8",
    "manifest.json": "application/json",
    "SHA256SUMS": "text/plain; charset=utf-8",
    "bundle.tar": "application/x-tar",
}

# Files that some jobs alone have, and why others have not.
_WHY_MISSING = {
    SOFT_LABELS_FILE: "relabel.targets of the job is not 'soft'",
    INFLUENCES_FILE: "no influences were traced for the job",
}


def check_file_name(file_name: str, result: ResultTable) -> None:
    """Raise ServiceError `not_found` unless a job with this result has an export of this name."""
    names = list_bundle_files(result)
    why = _WHY_MISSING.get(file_name)
    if file_name not in MEDIA_TYPES or (why is not None and file_name not in names):
        because = "" if why is None else f"; {why}"
        raise ServiceError(
            "not_found",
            f"There is no file {file_name[:80]!r} in this bundle; there are {', '.join(names)}{because}.",
            param="file_name",
        )


class Exporter:
    """Makes the files of one job with its `num_kept` best-ranked rows kept."""

    def __init__(
        self, database: Database, store: ExportStore, job: JobTable, result: ResultTable, num_kept: int
    ) -> None:
        self._database = database
        self._store = store
        self._job = job
        self._result = result
        self._num_kept = num_kept
        self._reader = RowReader(database, result)

    def export(self, file_name: str) -> ExportedFile:
        """Return the file, made now unless it was made before.

        Two requests at once may both make it: they make the same bytes under the same name.
        """
        stored = self._find(file_name) or self._make(file_name)
        return ExportedFile(stored, file_name, MEDIA_TYPES[file_name])

    def _find(self, file_name: str) -> StoredFile | None:
        with self._database.read() as session:
            known = ResultRepository(session).find_export(self._job.id, file_name, self._num_kept)
        return self._store.find(known.sha256, known.size_bytes) if known is not None else None

    def _make(self, file_name: str) -> StoredFile:
        stored = self._store.add(self._choose_writer(file_name))
        export = ExportTable(
            job_id=self._job.id,
            file_name=file_name,
            num_kept=self._num_kept,
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
        )
        try:
            with self._database.write() as session:
                ResultRepository(session).put_export(export)
        except IntegrityError:
            # Another request remembered the same file first, or the job was deleted meanwhile.
            _log.info("export was remembered by another request", job_id=self._job.id, file_name=file_name)
        return stored

    def _choose_writer(self, file_name: str) -> Callable[[BinaryIO], None]:
        batches = self._reader.kept_batches(self._num_kept)
        writers: dict[str, Callable[[BinaryIO], None]] = {
            "rows.parquet": partial(write_parquet, batches=batches),
            "rows.csv": partial(write_csv, batches=batches),
            "rows.jsonl": partial(write_jsonl, batches=batches),
            "keep.npy": partial(write_keep, batches=batches, num_kept=self._num_kept),
            "weights.npy": partial(write_weights, batches=batches, num_rows=self._result.num_rows),
            SOFT_LABELS_FILE: partial(
                write_soft_labels, batches=self._reader.batches(), num_rows=self._result.num_rows
            ),
            INFLUENCES_FILE: self._write_influences,
            "croissant.json": self._write_croissant,
            "report.html": self._write_report,
            "manifest.json": self._write_manifest,
            "SHA256SUMS": self._write_sums,
            "bundle.tar": self._write_bundle,
        }
        return writers[file_name]

    @cached_property
    def _summary(self) -> Summary:
        summary = Summary.model_validate(self._result.summary)
        if self._num_kept == self._result.num_kept:
            return summary
        return select_again(summary, self._reader, self._num_kept)

    def _write_influences(self, file: BinaryIO) -> None:
        write_parquet(file, iter([read_influences(self._database, self._result)]))

    def _write_croissant(self, file: BinaryIO) -> None:
        tables = list_tables(self._result)
        files = [self.export(name) for name in (*tables, *list_arrays(self._result))]
        schemas = {"rows.parquet": next(self._reader.kept_batches(self._num_kept)).schema}
        if INFLUENCES_FILE in tables:
            schemas[INFLUENCES_FILE] = read_influences(self._database, self._result).schema
        file.write(build_croissant(self._job, self._result, self._summary, files, schemas))

    def _write_report(self, file: BinaryIO) -> None:
        with self._database.read() as session:
            previews = ResultRepository(session).list_previews(self._result, limit=NUM_REPORTED_PREVIEWS)
        suspects = list_suspects(previews, self._reader, self._num_kept)
        file.write(build_report(self._job, self._result, self._summary, suspects))

    def _write_manifest(self, file: BinaryIO) -> None:
        outputs = [self.export(name) for name in list_listed_files(self._result)]
        file.write(build_manifest(self._job, self._result, self._summary, outputs))

    def _write_sums(self, file: BinaryIO) -> None:
        file.write(build_sums([self.export(name) for name in list_bundle_files(self._result)[:-1]]))

    def _write_bundle(self, file: BinaryIO) -> None:
        write_tar(file, [self.export(name) for name in list_bundle_files(self._result)])
