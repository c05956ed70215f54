"""What users may do with jobs. Every method is one transaction, committed before it returns."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from service.cursors import decode_cursor, encode_cursor, refuse_cursor
from service.datasets.schemas import InspectionReport
from service.datasets.service import check_files, inspect
from service.db.engine import Database
from service.errors import ServiceError
from service.jobs.document import DocumentError, JobDocument, canonical_json, document_digest, parse_document
from service.jobs.repository import JobFilter, JobRepository, NewJob
from service.jobs.schemas import Job, JobEvent, JobPage, MetricPoint
from service.jobs.state import JobState
from service.jobs.tables import JobTable
from service.jobs.views import view_event, view_job, view_metric
from service.results.files import EXPORTS, ExportStore
from service.results.repository import ResultRepository
from service.settings import Settings

MAX_IDEMPOTENCY_KEY_CHARACTERS = 200
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_EVENTS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Submission:
    """The job that a document became; `replayed` when the same key had made it before."""

    job: Job
    replayed: bool


class JobService:
    """Submit, look at and steer jobs."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._exports = ExportStore(settings.data_dir / EXPORTS)

    def validate(self, data: object) -> InspectionReport:
        """Check a raw document and open the data it names, without making a job.

        Raises:
            DocumentError: `invalid_document`, with every problem of the document and of its data.
        """
        report = inspect(parse_document(data), self._settings)
        if report.problems:
            raise DocumentError(report.problems)
        return report

    def submit(self, data: object, *, idempotency_key: str | None = None) -> Submission:
        """Make a job of a raw document, or find the one that the same key made before.

        Raises:
            DocumentError: `invalid_document`; also where a file it names is missing or not allowed.
            ServiceError: `invalid_idempotency_key`, or `idempotency_key_reused` with another document.
        """
        document = parse_document(data)
        if idempotency_key is None:
            self._check_files(document)
            return Submission(self._add(document, None), replayed=False)
        _check_idempotency_key(idempotency_key)
        replayed = self._find_replay(document, idempotency_key)
        if replayed is not None:
            return replayed
        self._check_files(document)
        try:
            return Submission(self._add(document, idempotency_key), replayed=False)
        except IntegrityError:
            # Another request with this key was committed between the look and the insert.
            replayed = self._find_replay(document, idempotency_key)
            if replayed is None:
                raise
            return replayed

    def get(self, job_id: str) -> Job:
        """Return the job. Raises NotFoundError."""
        with self._database.read() as session:
            return _view(JobRepository(session), [JobRepository(session).get(job_id)])[0]

    def list(self, wanted: JobFilter, *, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Return one page of jobs, newest first.

        Raises:
            ServiceError: `invalid_cursor`.
        """
        before_id = _read_cursor(cursor)
        with self._database.read() as session:
            repository = JobRepository(session)
            jobs = repository.list(wanted, before_id=before_id, limit=limit + 1)
            items = _view(repository, jobs[:limit])
        next_cursor = encode_cursor({"before": items[-1].id}) if len(jobs) > limit else None
        return JobPage(items=items, next_cursor=next_cursor)

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job, or ask the attempt that holds it to stop. Asking twice is allowed.

        Raises:
            NotFoundError, ForbiddenTransitionError
        """
        with self._database.write() as session:
            repository = JobRepository(session)
            return _view(repository, [repository.request_cancel(job_id)])[0]

    def resume(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; it goes on from its last checkpoint.

        Raises:
            NotFoundError, ForbiddenTransitionError
        """
        with self._database.write() as session:
            repository = JobRepository(session)
            return _view(repository, [repository.resume(job_id)])[0]

    def delete(self, job_id: str) -> None:
        """Remove a final job, its results, its exports and its checkpoints.

        Raises:
            NotFoundError, ForbiddenTransitionError
        """
        with self._database.write() as session:
            digests = ResultRepository(session).list_export_digests(job_id)
            JobRepository(session).delete(job_id)
            orphans = digests - ResultRepository(session).find_used_digests(digests)
        # Rows first: files without a row are only waste, rows without files would be a promise not kept.
        self._exports.remove(orphans)
        shutil.rmtree(self._settings.data_dir / "checkpoints" / job_id, ignore_errors=True)

    def list_events(self, job_id: str, *, after_id: int = 0) -> Sequence[JobEvent]:
        """Return all events after `after_id`, oldest first. Raises NotFoundError."""
        events: list[JobEvent] = []
        while True:
            _, more = self.poll(job_id, after_id=events[-1].id if events else after_id)
            events += more
            if len(more) < _EVENTS_AT_ONCE:
                return events

    def poll(self, job_id: str, *, after_id: int) -> tuple[Job, Sequence[JobEvent]]:
        """Return the job and up to 1,000 events after `after_id`. Raises NotFoundError.

        The job is read first: where it is final and no event follows, there will never be one.
        """
        with self._database.read() as session:
            repository = JobRepository(session)
            job = _view(repository, [repository.get(job_id)])[0]
            events = repository.list_events(job_id, after_id=after_id, limit=_EVENTS_AT_ONCE)
            return job, [view_event(event) for event in events]

    def list_metrics(self, job_id: str) -> Sequence[MetricPoint]:
        """Return the training curves. Raises NotFoundError."""
        with self._database.read() as session:
            repository = JobRepository(session)
            repository.get(job_id)
            return [view_metric(point) for point in repository.list_metrics(job_id)]

    def _check_files(self, document: JobDocument) -> None:
        problems = check_files(document, self._settings)
        if problems:
            raise DocumentError(problems)

    def _find_replay(self, document: JobDocument, idempotency_key: str) -> Submission | None:
        with self._database.read() as session:
            repository = JobRepository(session)
            job = repository.find_by_idempotency_key(idempotency_key)
            if job is None:
                return None
            if job.document_digest != document_digest(document):
                raise ServiceError(
                    "idempotency_key_reused",
                    f"Idempotency-Key {idempotency_key!r} was used before, with another document.",
                    param="Idempotency-Key",
                    hint="Send another key with another document.",
                )
            return Submission(_view(repository, [job])[0], replayed=True)

    def _add(self, document: JobDocument, idempotency_key: str | None) -> Job:
        new = NewJob(
            document=canonical_json(document),
            document_digest=document_digest(document),
            max_attempts=document.limits.max_attempts,
            max_seconds=float(document.limits.max_seconds),
            name=document.name,
            idempotency_key=idempotency_key,
            labels=document.labels,
        )
        with self._database.write() as session:
            repository = JobRepository(session)
            return _view(repository, [repository.add(new)])[0]


def _view(repository: JobRepository, jobs: Sequence[JobTable]) -> list[Job]:
    labels = repository.list_labels([job.id for job in jobs])
    return [
        view_job(job, labels[job.id], repository.count_ahead(job) + 1 if job.state == JobState.QUEUED else None)
        for job in jobs
    ]


def _read_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    before_id: str = decode_cursor(cursor, {"before": str})["before"]
    if not JOB_ID.fullmatch(before_id):
        raise refuse_cursor()
    return before_id


def _check_idempotency_key(key: str) -> None:
    if not key or len(key) > MAX_IDEMPOTENCY_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise ServiceError(
            "invalid_idempotency_key",
            f"Idempotency-Key is {key[:50]!r}; "
            f"wanted 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} printable ASCII characters.",
            param="Idempotency-Key",
        )
