"""Commands against a server: SAMA_URL, with SAMA_API_KEY."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.console import console
from service.cli.options import (
    DebugOption,
    JobArgument,
    JsonOption,
    OutOption,
    OverwriteOption,
    SetOption,
    SpecArgument,
)

if TYPE_CHECKING:
    from service.client.client import Client
    from service.jobs.schemas import Job

_PAGE_SIZE = 200


def submit(
    spec: SpecArgument,
    changes: SetOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    _json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Hand a job document to the server."""
    from service.cli.specs import anchor_existing, load_spec

    fields = load_spec(spec, changes or ())
    with _connect() as client:
        if client.address.is_local:
            anchor_existing(fields, spec)
        job = client.submit(fields)
        if wait:
            console.note(f"job {job.id}")
            _follow(client, job.id)
            return
    console.say(job.id)
    console.emit({"job": job.model_dump(mode="json")})


def jobs(
    states: Annotated[
        list[str] | None, typer.Option("--state", help="Only jobs in this state; may be repeated.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Only jobs with this label; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 50,
    _json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """List jobs, newest first."""
    from service.cli.reports import write_jobs

    with _connect() as client:
        listed = _list_jobs(client, states or [], _read_labels(labels or []), name, limit)
    console.say("\n".join(write_jobs(listed)) if listed else "no jobs")
    console.emit({"jobs": [job.model_dump(mode="json") for job in listed]})


def show(job_id: JobArgument, _json: JsonOption = False, _debug: DebugOption = False) -> None:
    """Show where a job stands and what it found."""
    from service.cli.reports import write_job, write_summary

    with _connect() as client:
        job = client.get(job_id)
        summary = client.summary(job_id) if job.state == "succeeded" else None
    lines = write_job(job)
    if summary is not None:
        lines += ["", *write_summary(job, summary)]
    console.say("\n".join(lines))
    console.emit(
        {"job": job.model_dump(mode="json"), "summary": None if summary is None else summary.model_dump(mode="json")}
    )


def watch(job_id: JobArgument, _json: JsonOption = False, _debug: DebugOption = False) -> None:
    """Follow a job to its end."""
    with _connect() as client:
        _follow(client, job_id)


def cancel(job_id: JobArgument, _json: JsonOption = False, _debug: DebugOption = False) -> None:
    """Cancel a job, queued or running."""
    with _connect() as client:
        _tell(client.cancel(job_id))


def resume(job_id: JobArgument, _json: JsonOption = False, _debug: DebugOption = False) -> None:
    """Queue a failed or cancelled job again.

    It goes on from its last checkpoint.
    """
    with _connect() as client:
        _tell(client.resume(job_id))


def logs(
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    _json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Show everything that has happened to a job."""
    from service.jobs.schemas import JobEvent

    with _connect() as client:
        seen = []
        for item in client.watch(job_id) if follow else client.events(job_id):
            if isinstance(item, JobEvent):
                seen.append(item)
                console.say(_write_event(item))
    console.emit({"events": [event.model_dump(mode="json") for event in seen]})


def download(
    job_id: JobArgument,
    out: OutOption,
    keep_fraction: Annotated[
        float | None, typer.Option(help="Share of all rows to keep, instead of the job's own; nothing is run again.")
    ] = None,
    overwrite: OverwriteOption = False,
    _json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Download the bundle of a finished job.

    A broken download goes on where it stopped; every file is checked by its digest.
    """
    from service.cli.progress import open_progress

    with _connect() as client, open_progress() as view:
        paths = client.download(job_id, out, keep_fraction=keep_fraction, overwrite=overwrite, observer=view.show_bytes)
    console.say(f"{out.resolve()} ({len(paths)} files, every digest holds)")
    console.emit({"bundle": str(out.resolve()), "files": [path.name for path in paths]})


def _connect() -> "Client":
    from service.client.client import Client

    return Client()


def _follow(client: "Client", job_id: str) -> None:
    from service.cli.exits import JobEndedError
    from service.cli.progress import open_progress
    from service.cli.reports import write_summary

    with open_progress() as view:
        job = view.follow(client.watch(job_id))
    if job.state != "succeeded":
        raise JobEndedError(job)
    summary = client.summary(job_id)
    console.say("\n".join(write_summary(job, summary)))
    console.say(f"  download it: sama download {job.id} --out DIR")
    console.emit({"job": job.model_dump(mode="json"), "summary": summary.model_dump(mode="json")})


def _list_jobs(
    client: "Client", states: list[str], labels: dict[str, str], name: str | None, limit: int
) -> list["Job"]:
    listed: list[Job] = []
    cursor: str | None = None
    while True:
        page = client.list(
            states=states, labels=labels, name=name, cursor=cursor, limit=min(_PAGE_SIZE, limit - len(listed))
        )
        listed += page.items
        cursor = page.next_cursor
        if cursor is None or len(listed) >= limit:
            return listed


def _read_labels(texts: list[str]) -> dict[str, str]:
    from service.errors import ServiceError

    for text in texts:
        if not text.partition("=")[1]:
            raise ServiceError("invalid_option", f"--label is {text!r}; wanted KEY=VALUE, as in team=ads.")
    return dict(text.split("=", 1) for text in texts)


def _tell(job: "Job") -> None:
    console.say(f"job {job.id} is {job.state}")
    console.emit({"job": job.model_dump(mode="json")})


def _write_event(event: object) -> str:
    from service.jobs.schemas import JobEvent
    from service.wording import write_moment

    assert isinstance(event, JobEvent)
    return f"{write_moment(event.created_at)}  attempt {event.attempt}  {event.kind:<8}  {event.message}"
