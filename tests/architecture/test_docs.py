"""The docs, held against the code: what they name exists, and what exists they name."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from service.attempts.state import Failure
from service.exception_handlers import STATUS_OF_CODE
from service.jobs.document import JobDocument, parse_document
from service.jobs.evaluation_rules import DEFAULT_ARMS, TRUSTED_ARMS
from service.main import create_app
from service.results.influences import influences_schema
from service.results.rows import rows_schema
from service.settings import Settings
from worker import failures

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _read(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    assert f"`SAMA_{name.upper()}`" in _read("docs/reference/settings.md")


def test_no_setting_is_documented_that_is_not_there() -> None:
    known = {f"SAMA_{name.upper()}" for name in Settings.model_fields} | {"SAMA_URL", "SAMA_REAL_DATA", "SAMA_PUBLISH"}
    for path in DOCS:
        assert set(re.findall(r"\bSAMA_[A-Z_]+\b", path.read_text())) <= known, path.name


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = [part for part in (field.annotation, *get_args(field.annotation)) if isinstance(part, type)]
        sections = [part for part in inner if issubclass(part, BaseModel) and "column" not in part.model_fields]
        yield from _paths(sections[0], f"{path}.") if sections else iter([path])


@pytest.mark.parametrize("path", sorted(_paths(JobDocument)))
def test_every_field_of_the_document_is_documented(path: str) -> None:
    text = _read("docs/reference/job-document.md")
    leaf = path.rpartition(".")[2]
    assert f"`{path}`" in text or f"`.{leaf}`" in text


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def _documents() -> Iterator[tuple[str, str]]:
    for path in DOCS:
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL):
            yield str(path.relative_to(ROOT)), block
    for path in sorted((ROOT / "docs" / "examples").glob("*.yaml")):
        yield path.name, path.read_text()


@pytest.mark.parametrize(("name", "text"), list(_documents()))
def test_every_document_shown_is_accepted(name: str, text: str) -> None:
    assert parse_document(yaml.safe_load(text)).dataset.uri


@pytest.mark.parametrize(("name", "text"), list(_documents()))
def test_every_document_shown_is_proved_beside_every_control(name: str, text: str) -> None:
    document = parse_document(yaml.safe_load(text))
    if document.test is not None:
        assert document.evaluation is not None
        assert set(document.evaluation.arms) == {*DEFAULT_ARMS, *TRUSTED_ARMS}
        assert document.evaluation.seeds >= 3


def test_the_four_examples_are_there() -> None:
    assert len(list((ROOT / "docs" / "examples").glob("*.yaml"))) >= 4


def test_the_columns_of_the_rows_and_of_the_influences_are_documented() -> None:
    import pyarrow as pa

    text = _read("docs/reference/bundle.md")
    columns = influences_schema(pa.int64(), pa.int64(), pa.string()).names
    for name in (*rows_schema(pa.int64(), pa.string()).names, *columns):
        assert f"| `{name}` |" in text


def test_make_targets_named_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE))
    for path in [*DOCS, ROOT / "CONTRIBUTING.md"]:
        assert set(re.findall(r"`make ([a-z-]+)", path.read_text())) <= targets, path.name


def test_every_route_is_documented(tmp_path: Path) -> None:
    text = _read("docs/reference/http.md")
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    routes = [f"`{method.upper()} {path}`" for path, methods in paths.items() for method in methods]
    assert len(routes) > 15
    assert not [route for route in routes if route not in text]


@pytest.mark.parametrize("code", STATUS_OF_CODE)
def test_every_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in _read("docs/reference/http.md")


@pytest.mark.parametrize("failure", [value for value in vars(failures).values() if isinstance(value, Failure)])
def test_every_failure_is_documented(failure: Failure) -> None:
    assert f"| `{failure.code}` | {failure.message} | {failure.hint} |" in _read("docs/reference/http.md")


def test_every_command_is_documented() -> None:
    shown = subprocess.run([sys.executable, "-m", "service.cli", "--help"], capture_output=True, text=True, check=True)
    commands = re.findall(r"^  ([a-z]+)  +[A-Z]", shown.stdout, re.MULTILINE)
    assert len(commands) == 14
    assert not [name for name in commands if f"| `sama {name}" not in _read("docs/reference/cli.md")]


def test_the_library_example_of_the_readme_runs() -> None:
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", _read("README.md"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (share,) = re.findall(r"^(\d+)% of the wrong labels", done.stdout, re.MULTILINE)
    assert int(share) >= 90
