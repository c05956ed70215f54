"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import console


def _set_debug(value: bool) -> bool:
    console.is_debug = console.is_debug or value
    return value


def _set_json(value: bool) -> bool:
    console.is_json = console.is_json or value
    return value


DebugOption = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Add the traceback to an error.")]
JsonOption = Annotated[
    bool, typer.Option("--json", callback=_set_json, help="Write one JSON object as the last line of the output.")
]
SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="The job document, YAML or JSON; - reads it from standard input.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, as in training.epochs=5; may be repeated."),
]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `sama jobs` lists it.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the bundle.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there already.")]
DataRootOption = Annotated[
    list[Path] | None,
    typer.Option("--data-root", metavar="DIR", help="Folder that data sets may lie in; may be repeated."),
]
