"""`sama curate`: the whole job on this machine, as a client of the very service that runs in production."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from service.cli.console import console
from service.cli.options import (
    DataRootOption,
    DebugOption,
    JsonOption,
    OutOption,
    OverwriteOption,
    SetOption,
    SpecArgument,
)
from service.cli.signals import terminate_like_ctrl_c


@dataclass(frozen=True, slots=True)
class CurationRequest:
    """What is to be curated, and where everything goes."""

    fields: dict[str, Any]
    out: Path
    data_dir: Path | None
    data_roots: tuple[Path, ...]


def curate(
    spec: SpecArgument,
    *,
    out: OutOption,
    changes: SetOption = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep the job here, to be shown by `sama serve --data-dir DIR`; else it is forgotten."
        ),
    ] = None,
    data_roots: DataRootOption = None,
    overwrite: OverwriteOption = False,
    _json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Run a whole job on this machine; writes its bundle.

    No server is needed, and nothing is left running.
    """
    from service.cli.specs import anchor_spec, list_data_folders, load_spec
    from service.cli.targets import check_target
    from service.jobs.document import parse_document

    fields = load_spec(spec, changes or ())
    anchor_spec(fields, spec)
    document = parse_document(fields)
    check_target(out, overwrite=overwrite)
    roots = (*list_data_folders(document), *(data_roots or ()))
    _run(CurationRequest(fields, out, data_dir, roots))


def _run(request: CurationRequest) -> None:
    from service.cli.embedded import EmbeddedService, refuse_unfinished_jobs, use_data_directory

    with (
        terminate_like_ctrl_c(),
        use_data_directory(request.data_dir) as data_dir,
        EmbeddedService(data_dir, request.data_roots) as service,
    ):
        client = service.start_api()
        refuse_unfinished_jobs(client, data_dir)
        service.start_worker()
        with service.watched():
            _curate(request, client)


def _curate(request: CurationRequest, client: Any) -> None:
    from service.cli.exits import JobEndedError
    from service.cli.inspections import write_outline
    from service.cli.progress import open_progress
    from service.cli.reports import write_summary
    from service.cli.targets import stage_target
    from service.cli.verification import verify_bundle
    from service.jobs.state import JobState

    report = client.validate(request.fields)
    for line in write_outline(report):
        console.note(line)
    job_id = client.submit(request.fields).id
    try:
        with open_progress() as view:
            job = view.follow(client.watch(job_id))
    except KeyboardInterrupt:
        _cancel(client, job_id)
    if job.state != JobState.SUCCEEDED:
        raise JobEndedError(job)
    with stage_target(request.out) as staging:
        client.download(job_id, staging)
        verified = verify_bundle(staging)
    summary = client.summary(job_id)
    bundle = request.out.resolve()
    console.say("\n".join(write_summary(job, summary, said=report.notes)))
    console.say(f"  bundle:  {bundle} ({verified.describe()})")
    console.emit(
        {
            "job": job.model_dump(mode="json"),
            "summary": summary.model_dump(mode="json"),
            "bundle": str(bundle),
            "data_dir": None if request.data_dir is None else str(request.data_dir.resolve()),
        }
    )


def _cancel(client: Any, job_id: str) -> NoReturn:
    """Cancel the job and wait until it has stopped; a second Ctrl-C does not wait."""
    from service.cli.progress import open_progress
    from service.errors import ServiceError
    from service.jobs.schemas import Job

    console.note("cancelling; Ctrl-C again ends at once")
    with contextlib.suppress(ServiceError), open_progress() as view:
        client.cancel(job_id)
        for update in client.watch(job_id):
            if isinstance(update, Job):
                view.show_job(update)
    raise ServiceError("interrupted", f"Interrupted; job {job_id} was cancelled and no bundle was written.")
