"""The command `sama`: its commands, and the one place where errors become exit codes."""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from service.cli import curate, local, remote, serve
from service.cli.console import console

app = typer.Typer(
    name="sama",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Tells which training examples to keep, how much each should count, and which labels are wrong. "
        "`curate`, `validate`, `verify` and `serve` need nothing but this machine; the other commands talk to the "
        "server at SAMA_URL (default http://127.0.0.1:8000) with the key in SAMA_API_KEY. "
        "There is one key to a server so far; commands to manage several come with a later version."
    ),
    epilog="Exit codes: 0 done; 1 the job failed or a check did not hold; 2 wrong usage or a refused document; "
    "3 the server cannot be reached.",
)
for _command in (
    curate.curate,
    serve.serve,
    remote.submit,
    remote.jobs,
    remote.show,
    remote.watch,
    remote.cancel,
    remote.resume,
    remote.logs,
    remote.download,
    local.verify,
    local.validate,
    local.worker,
    local.migrate,
):
    app.command()(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error is written as one line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    # Known before the options are parsed, so that even a usage error honours them.
    console.is_debug, console.is_json = "--debug" in given, "--json" in given
    try:
        return int(app(args=given, prog_name="sama", standalone_mode=False) or 0)
    except typer.TyperException as exc:
        return _fail_usage(exc)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", "Interrupted.")
    except BrokenPipeError:
        # The reader of our output has gone; what is still buffered has no taker.
        sys.stderr.close()
        return 1
    except Exception as exc:  # noqa: BLE001 - the outermost guard of the process
        return _fail_unexpected(exc)


def main() -> NoReturn:
    """Run the command that the process was started with."""
    sys.exit(run())


def _fail_usage(error: typer.TyperException) -> int:
    from service.cli.exits import REFUSED

    message = error.format_message()
    if message:
        _fail("usage", f"{message.rstrip('.')}. See `sama --help`, or --help after a command.")
    return REFUSED


def _fail(code: str, message: str) -> int:
    from service.errors import ServiceError

    console.fail(ServiceError(code, message))
    return 1


def _fail_unexpected(error: Exception) -> int:
    from service.cli.exits import find_exit_code
    from service.errors import ServiceError

    if isinstance(error, ServiceError):
        console.fail(error)
        return find_exit_code(error)
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        wrapped = ServiceError("system_error", f"{what}{error.strerror or error}.")
    else:
        wrapped = ServiceError(
            "internal_error", f"{type(error).__name__}: {error}", hint="This is a fault of sama; --debug shows where."
        )
    wrapped.__cause__ = error
    console.fail(wrapped)
    return 1


if __name__ == "__main__":
    main()
