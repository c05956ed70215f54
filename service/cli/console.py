"""What commands write: text for people on standard output, one JSON object for programs, errors in one line."""

import json
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import typer

from service.errors import Problem, ServiceError


class Console:
    """The two streams of a command. With `--json`, standard output carries the final object alone."""

    def __init__(self) -> None:
        self.is_debug = False
        self.is_json = False

    def say(self, text: str) -> None:
        """Write a result for people; nothing with `--json`."""
        if not self.is_json:
            typer.echo("\n".join(clean_line(line) for line in text.split("\n")))

    def note(self, text: str) -> None:
        """Write what happens meanwhile, on standard error."""
        typer.echo("\n".join(clean_line(line) for line in text.split("\n")), err=True)

    def emit(self, fields: Mapping[str, Any]) -> None:
        """With `--json`, write the one object that programs read, on a line of its own."""
        if self.is_json:
            typer.echo(json.dumps(fields, ensure_ascii=False, default=str))

    def fail(self, error: ServiceError) -> None:
        """Write an error: one line for each fault."""
        if self.is_debug:
            self.note("".join(traceback.format_exception(error)).rstrip())
        for line in describe_error(error):
            self.note(f"error: {line}")
        self.emit(
            {
                "error": {
                    "code": error.code,
                    "message": error.message,
                    "param": error.param,
                    "hint": error.hint,
                    "problems": [problem.as_dict() for problem in error.problems],
                }
            }
        )


console = Console()
"""The console of this process: a command line has one."""


def describe_error(error: ServiceError) -> list[str]:
    """Return the lines that tell an error: every problem of a document, else the message and what to do."""
    if error.problems:
        return [clean_line(_describe_problem(problem)) for problem in error.problems]
    return [clean_line(" ".join(part for part in (error.message, error.hint) if part))]


def is_terminal() -> bool:
    """Tell whether progress is watched by a person."""
    return sys.stderr.isatty()


def _describe_problem(problem: Problem) -> str:
    if not problem.param or problem.param in problem.message:
        return problem.message
    return f"{problem.param}: {problem.message}"


def clean_line(text: str) -> str:
    """Return text as one printable line: what a data set or a server says must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
