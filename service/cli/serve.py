"""`sama serve`: API, dashboard and a local worker in one command."""

import os
import socket
import threading
from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import console
from service.cli.options import DataRootOption, DebugOption
from service.cli.signals import terminate_like_ctrl_c
from service.errors import ServiceError

_LOOK_SECONDS = 5.0
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - an address to replace, not to listen on


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Database, results and the API key.")] = Path(
        "sama-data"
    ),
    data_roots: DataRootOption = None,
    _debug: DebugOption = False,
) -> None:
    """Run the API, the dashboard and one worker until Ctrl-C."""
    from service.cli.embedded import STOP_SECONDS, join_roots, lock_data_directory, wait_until_alive
    from service.cli.processes import ChildProcesses

    _check_port(host, port)
    environment = dict(os.environ) | {
        "SAMA_DATA_DIR": str(data_dir.resolve()),
        "SAMA_HOST": host,
        "SAMA_PORT": str(port),
    }
    if data_roots or "SAMA_DATA_ROOTS" not in environment:
        environment["SAMA_DATA_ROOTS"] = join_roots(data_roots or [Path.cwd()])
    environment.setdefault("SAMA_LOG_LEVEL", "WARNING")  # a person reads this terminal
    children = ChildProcesses(environment)
    url = f"http://{_WILDCARDS.get(host, host)}:{port}"
    with terminate_like_ctrl_c(), lock_data_directory(data_dir):
        try:
            children.run("migration", "service.db.migrate")
            children.start("API", "service.main")
            children.start("worker", "worker")
            with children.watched():
                wait_until_alive(url, children)
                _greet(url, data_dir, environment)
                while True:
                    # Signals and the end of a child interrupt the wait; looking again covers one missed between.
                    threading.Event().wait(_LOOK_SECONDS)
                    children.check()
        except KeyboardInterrupt:
            console.note("stopping")
        finally:
            children.stop(STOP_SECONDS)


def _greet(url: str, data_dir: Path, environment: dict[str, str]) -> None:
    from service.cli.embedded import read_api_key
    from service.client.client import Client

    given_key = environment.get("SAMA_API_KEY")
    api_key = given_key or read_api_key(data_dir)
    with Client(url, api_key) as client:
        link = client.create_login_link()
    where = "as set in SAMA_API_KEY" if given_key else f"{api_key}  (also in {data_dir / 'api-key'})"
    console.say(f"Sama is at {url}")
    console.say(f"  dashboard  {link}  (opens once; a new one is made at each start)")
    console.say(f"  API key    {where}")
    console.say(f"  data sets  are read under {environment['SAMA_DATA_ROOTS'].replace(':', ', ')}")
    console.say("Ctrl-C stops it; unfinished jobs go on at the next start.")


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        message = f"Nothing can listen on {host} port {port}: {exc.strerror}."
        raise ServiceError("address_not_usable", message, hint="Name another with --port.") from exc
