"""Usage, start-up and what errors look like."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Sama

COMMANDS = [
    *("curate", "serve", "submit", "jobs", "show", "watch", "cancel", "resume", "logs", "download"),
    *("verify", "validate", "worker", "migrate"),
]


def test_help_lists_every_command(sama: Sama) -> None:
    outcome = sama("--help")
    assert outcome.code == 0
    assert all(f"  {command} " in outcome.out for command in COMMANDS)
    assert "Exit codes" in outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(sama: Sama, command: str) -> None:
    outcome = sama(command, "--help")
    assert outcome.code == 0
    assert f"Usage: sama {command}" in outcome.out


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from service.cli.main import run
assert run(["--help"]) == 0
heavy = {"pyarrow", "numpy", "torch", "httpx", "pydantic", "sqlalchemy", "fastapi", "rich", "yaml"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_installed_command_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("sama")
    for command in ([str(script)], [sys.executable, "-m", "service.cli"]):
        finished = subprocess.run([*command, "nonsense"], check=False, capture_output=True, text=True)
        assert finished.returncode == 2
        assert finished.stderr == "error: No such command 'nonsense'. See `sama --help`, or --help after a command.\n"
        assert finished.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curate", "job.yaml"], "Missing option '--out'"),
        (["submit"], "Missing argument 'SPEC'"),
        (["jobs", "--colour"], "No such option: --colour"),
        (["jobs", "--limit", "0"], "Invalid value for '--limit'"),
        (["serve", "--port", "99999"], "Invalid value for '--port'"),
        (["jobs", "--label", "team"], "--label is 'team'; wanted KEY=VALUE, as in team=ads."),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(sama: Sama, arguments: list[str], message: str) -> None:
    outcome = sama(*arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert outcome.out == ""


def test_a_server_that_is_away_is_exit_code_3(sama: Sama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMA_URL", "http://127.0.0.1:1")
    for arguments in (["jobs"], ["show", "job_1"], ["watch", "job_1"], ["cancel", "job_1"], ["logs", "job_1"]):
        outcome = sama(*arguments)
        assert outcome.code == 3
        assert outcome.errors == [outcome.err.rstrip("\n")]
        assert "The server at http://127.0.0.1:1 cannot be reached" in outcome.err
        assert "set SAMA_URL" in outcome.err


def test_debug_adds_the_traceback_and_json_tells_the_error_too(sama: Sama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMA_URL", "http://127.0.0.1:1")
    plain, debug, machine = sama("jobs"), sama("jobs", "--debug"), sama("jobs", "--json")
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert debug.errors == plain.errors
    fields = json.loads(machine.out.splitlines()[-1])
    assert (fields["error"]["code"], machine.code) == ("unreachable", 3)


def test_a_fault_of_our_own_is_one_line_too(sama: Sama, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("service.cli.remote._connect", break_down)
    outcome = sama("jobs")
    assert outcome.code == 1
    assert outcome.err == "error: ZeroDivisionError: a bug This is a fault of sama; --debug shows where.\n"


def test_an_address_that_is_none_is_refused(sama: Sama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMA_URL", "localhost:8000")
    outcome = sama("jobs")
    assert outcome.code == 2
    assert "The server's address is 'localhost:8000'; wanted http://HOST:PORT" in outcome.err
