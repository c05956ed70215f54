"""Rules of the house that no linter knows: each exists because this file checks it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sama_bundle", "sama_core", "service", "worker", "migrations")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PYTHON_FILES = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "tools", "stuff"}
# Words that the glossary (docs/glossary.md) replaces by others.
AVOIDED_WORDS = {"jvp", "meta_grads", "precondition", "inner_loop", "outer_loop", "inner_iters", "prune_rate"}


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_named_after_one_noun(path: Path) -> None:
    assert path.stem not in VAGUE_NAMES
    assert path.parent.name not in VAGUE_NAMES


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


# A migration is one long list of statements, so its functions may be long.
@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.parent.name != "versions"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_functions_are_short_and_classes_small(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for function in _functions(tree):
        body = [
            node for node in function.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        ]
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        assert lines <= 60, f"{function.name} has {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            public = [f.name for f in node.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
            assert len(public) <= 16, f"{node.name} has {len(public)} public methods"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_abstract_classes_are_named_so(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            if "ABC" in bases:
                assert node.name.startswith("Abstract"), node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_glossary_is_kept(path: Path) -> None:
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert not {name for name in names if any(word in name.lower() for word in AVOIDED_WORDS)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe_is_loaded(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve"} & set(modules)
        if isinstance(node, ast.keyword) and node.arg in {"trust_remote_code", "allow_pickle"}:
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


@pytest.mark.parametrize("module", ["service.main", "service.cli.main", "service.client.client"])
def test_the_service_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_supervisor_imports_no_torch() -> None:
    code = "import sys, worker.__main__, worker.supervisor, worker.celery_app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
