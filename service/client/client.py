"""The client: every route of the HTTP contract as a typed method."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from service.client.address import find_address
from service.client.bundle_listing import SUMS_FILE, read_sums
from service.client.downloads import Download, Observer, refuse_other_files, write_whole
from service.client.errors import UnreachableError
from service.client.streams import read_messages
from service.client.transport import CONNECT_SECONDS, Transport
from service.datasets.schemas import InspectionReport
from service.errors import ServiceError
from service.jobs.document import JobDocument, canonical_json
from service.jobs.schemas import Job, JobEvent, JobEventList, JobPage, MetricList, MetricPoint
from service.jobs.state import FINAL_STATES
from service.results.schemas import ExamplePage, Summary

_STREAM_SILENCE_SECONDS = 45.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 3.0
# Reading a whole data set to validate it has no natural limit.
_PATIENT = httpx.Timeout(None, connect=CONNECT_SECONDS)


class Client:
    """Talks to one Sama server.

    `url` is `http://HOST:PORT`, `https://HOST` or `unix:///PATH/TO/SOCKET`; without it SAMA_URL is used, and
    SAMA_API_KEY for the key. Every method raises UnreachableError where no answer comes, and AnswerError (a
    ServiceError with the server's `code`, `param`, `hint` and `problems`) where the server refuses.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, *, timeout_seconds: float = 30.0) -> None:
        self.address = find_address(url, api_key)
        self._transport = Transport(self.address, timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def is_alive(self) -> bool:
        """Tell whether the server answers at all."""
        try:
            self._transport.request("GET", "/healthz")
        except ServiceError:
            return False
        return True

    def submit(self, document: Mapping[str, Any] | JobDocument, *, idempotency_key: str | None = None) -> Job:
        """Hand in a job document. A key of its own makes a repeated request harmless."""
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16), "Content-Type": "application/json"}
        answer = self._transport.request("POST", "/v1/jobs", json=_as_fields(document), headers=headers)
        return Job.model_validate_json(answer.content)

    def validate(self, document: Mapping[str, Any] | JobDocument) -> InspectionReport:
        """Check a document and the data it names without making a job."""
        answer = self._transport.request(
            "POST", "/v1/jobs", params={"validate_only": "true"}, json=_as_fields(document), timeout=_PATIENT
        )
        return InspectionReport.model_validate_json(answer.content)

    def list(
        self,
        *,
        states: Sequence[str] = (),
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> JobPage:
        """Return one page of jobs, newest first."""
        params = {
            "state": list(states) or None,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()] or None,
            "name": name,
            "cursor": cursor,
            "limit": limit,
        }
        return JobPage.model_validate_json(self._transport.request("GET", "/v1/jobs", params=params).content)

    def get(self, job_id: str) -> Job:
        """Return the job."""
        return Job.model_validate_json(self._transport.request("GET", _job_path(job_id)).content)

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job, or ask the attempt that runs it to stop."""
        return Job.model_validate_json(self._transport.request("POST", _job_path(job_id, "cancel")).content)

    def resume(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; it goes on from its last checkpoint."""
        return Job.model_validate_json(self._transport.request("POST", _job_path(job_id, "resume")).content)

    def delete(self, job_id: str) -> None:
        """Remove a finished job and all that belongs to it."""
        self._transport.request("DELETE", _job_path(job_id))

    def events(self, job_id: str) -> Sequence[JobEvent]:
        """Return everything that has happened to the job, oldest first."""
        answer = self._transport.request("GET", _job_path(job_id, "events"), headers={"Accept": "application/json"})
        return JobEventList.model_validate_json(answer.content).items

    def metrics(self, job_id: str) -> Sequence[MetricPoint]:
        """Return the training curves."""
        answer = self._transport.request("GET", _job_path(job_id, "metrics"))
        return MetricList.model_validate_json(answer.content).items

    def summary(self, job_id: str) -> Summary:
        """Return what a finished job found."""
        return Summary.model_validate_json(self._transport.request("GET", _job_path(job_id, "summary")).content)

    def examples(
        self,
        job_id: str,
        *,
        sort: str | None = None,
        class_name: str | None = None,
        kept: bool | None = None,
        corrected: bool | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> ExamplePage:
        """Return one page of per-example results."""
        flags = {"kept": kept, "corrected": corrected}
        params = {
            "sort": sort,
            "class": class_name,
            **{name: None if flag is None else str(flag).lower() for name, flag in flags.items()},
            "cursor": cursor,
            "limit": limit,
        }
        answer = self._transport.request("GET", _job_path(job_id, "examples"), params=params)
        return ExamplePage.model_validate_json(answer.content)

    def watch(self, job_id: str, *, patience_seconds: float = 60.0) -> Iterator[Job | JobEvent]:
        """Yield the job's events and its progress as they come; the last item is the job in its final state.

        A stream that breaks is taken up again after the last event seen; where streams do not get through,
        the job is asked for again and again. A server that answered once and then fell silent is waited for
        `patience_seconds`, as through a restart; then, or where it never answered, UnreachableError is raised.
        """
        last_id: str | None = None
        heard_at: float | None = None
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                for item, item_id in self._follow(job_id, last_id):
                    last_id = item_id or last_id
                    heard_at, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
                    yield item
                    if isinstance(item, Job) and item.state in FINAL_STATES:
                        return
            except (UnreachableError, httpx.TransportError) as exc:
                if heard_at is None or time.monotonic() - heard_at > patience_seconds:
                    if isinstance(exc, httpx.TransportError):
                        raise self._transport.unreachable(exc) from exc
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def download(
        self,
        job_id: str,
        directory: Path,
        *,
        keep_fraction: float | None = None,
        overwrite: bool = False,
        observer: Observer | None = None,
    ) -> Sequence[Path]:
        """Bring the bundle of a finished job into `directory`, which is made if it is not there.

        Every file is checked by its digest and put in place whole; SHA256SUMS comes last, so that a folder
        which has it is complete. A broken download goes on where it stopped when it is called again.

        Raises:
            DigestMismatchError: a file did not arrive as announced.
            ServiceError: `target_exists`, a file of another bundle is there and `overwrite` is not set;
                `damaged_bundle`, the server's list of files makes no sense.
        """
        params = {"keep_fraction": keep_fraction}
        sums = self._transport.request("GET", _job_path(job_id, "bundle", SUMS_FILE), params=params).content
        digests = read_sums(sums.decode("utf-8", "replace"))
        if not overwrite:
            refuse_other_files(directory, digests)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / SUMS_FILE).unlink(missing_ok=True)
        for name, sha256 in digests.items():
            path = _job_path(job_id, "bundle", name)
            Download(self._transport, path, directory / name, sha256, params=params, observer=observer).run()
        write_whole(directory / SUMS_FILE, sums)
        return [*(directory / name for name in digests), directory / SUMS_FILE]

    def create_login_link(self) -> str:
        """Return a link that opens the dashboard once."""
        answer = self._transport.request("POST", "/v1/login-links")
        return str(answer.json()["url"])

    def _follow(self, job_id: str, last_id: str | None) -> Iterator[tuple[Job | JobEvent, str | None]]:
        """Yield from one stream until it ends; where the answer is no stream, yield the job as it is now."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = httpx.Timeout(_STREAM_SILENCE_SECONDS, connect=CONNECT_SECONDS)
        with self._transport.stream(
            _job_path(job_id, "events"), headers=headers, timeout=timeout, accepted_errors=(406,)
        ) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                for message in read_messages(response.iter_lines()):
                    if message.kind == "event":
                        yield JobEvent.model_validate_json(message.data), message.last_id
                    elif message.kind == "progress":
                        yield Job.model_validate_json(message.data), None
                return
        yield self.get(job_id), None


def _job_path(job_id: str, *rest: str) -> str:
    if not job_id or not all(character.isalnum() or character in "_-" for character in job_id):
        raise ServiceError("not_found", f"There is no job {job_id!r}.", param="job")
    return "/".join(("/v1/jobs", job_id, *rest))


def _as_fields(document: Mapping[str, Any] | JobDocument) -> Any:
    if isinstance(document, JobDocument):
        return json.loads(canonical_json(document))
    return dict(document)
