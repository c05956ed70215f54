"""Commands that need no server: the dry run, the check of a bundle, and the processes of an installation."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.cli.console import console
from service.cli.options import DataRootOption, DebugOption, JsonOption, SetOption, SpecArgument


def validate(
    spec: SpecArgument,
    changes: SetOption = None,
    data_roots: DataRootOption = None,
    _json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Check a job document and its data; runs nothing.

    On this machine, or on the server at SAMA_URL where that is set.
    """
    from service.cli.inspections import write_inspection
    from service.cli.specs import anchor_spec, list_data_folders, load_spec
    from service.jobs.document import parse_document

    fields = load_spec(spec, changes or ())
    if os.environ.get("SAMA_URL"):
        from service.client.client import Client

        with Client() as client:
            report = client.validate(fields)
    else:
        from service.cli.embedded import EmbeddedService, use_data_directory
        from service.cli.signals import terminate_like_ctrl_c

        anchor_spec(fields, spec)
        roots = (*list_data_folders(parse_document(fields)), *(data_roots or ()))
        with terminate_like_ctrl_c(), use_data_directory(None) as data_dir, EmbeddedService(data_dir, roots) as service:
            report = service.start_api().validate(fields)
    console.say("\n".join(write_inspection(report)))
    console.emit({"report": report.model_dump(mode="json")})


def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the bundle.")],
    data: Annotated[
        str | None, typer.Option(metavar="URI", help="Also check that this is the very data the bundle was made from.")
    ] = None,
    _json: JsonOption = False,
    _debug: DebugOption = False,
) -> None:
    """Check a bundle, and that its data is unchanged."""
    from service.cli.verification import verify_bundle, verify_data

    verified = verify_bundle(directory)
    console.say(f"{directory}: {verified.describe()}")
    if data is not None:
        num_rows = verify_data(directory, data)
        console.say(f"{data}: the same {num_rows:,} rows as the bundle was made from")
    console.emit({"bundle": str(directory.resolve()), **verified.as_fields(), "data": data})


def worker(_debug: DebugOption = False) -> None:
    """Run one worker, by the SAMA_ settings in force."""
    _replace_by("worker")


def migrate(_debug: DebugOption = False) -> None:
    """Bring the database to the newest schema."""
    _replace_by("service.db.migrate")


def _replace_by(module: str) -> NoReturn:
    # The module takes this process's place, so that signals and exit codes are its own.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 - no shell is wanted
