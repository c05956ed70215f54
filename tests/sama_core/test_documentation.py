"""Every example in a docstring runs, every public function has one, and imports climb no floor."""

import ast
import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import sama_core

MODULES = sorted(info.name for info in pkgutil.walk_packages(sama_core.__path__, "sama_core."))

FLOORS = (
    {"errors"},
    {"types", "precision", "allocation"},
    {"tensors", "randomness", "options", "checkpoint", "evidence", "buckets", "dynamics", "course"},
    {
        "batch",
        "batches",
        "moving_average",
        "origin",
        "probabilities",
        "features",
        "datasets",
        "views",
        "sampler",
        "settling",
        "exchange",
    },
    {"losses", "optimizers", "distributed"},
    {"learned", "adaptation", "memory"},
    {"descent"},
    {"problem", "meta", "base_level", "influences"},
    {"hypergradient"},
    {"window"},
    {"training"},
    {"representation"},
    {"neighbours"},
    {"bilevel"},
    {"decisions", "selection", "solve", "check"},
    {"method", "sharded"},
    {"reweighting", "scores", "repeated"},
    {"detection"},
    {"curate"},
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(verbose=False)
    for test in finder.find(module, name):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_exported_name_has_an_example() -> None:
    without = [
        name
        for name in sama_core.__all__
        if inspect.isfunction(getattr(sama_core, name)) and ">>>" not in (getattr(sama_core, name).__doc__ or "")
    ]
    assert without == []


def test_every_public_function_has_an_example() -> None:
    without = [
        f"{name}.{node.name}"
        for name in MODULES
        for node in ast.parse(inspect.getsource(importlib.import_module(name))).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and ">>>" not in (ast.get_docstring(node) or "")
    ]
    assert without == []


def _imports() -> Iterator[tuple[str, str]]:
    root = Path(sama_core.__file__).parent
    for path in root.rglob("*.py"):
        importer = path.relative_to(root).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sama_core."):
                yield importer, str(node.module).split(".")[1]


def test_no_module_imports_from_a_floor_above() -> None:
    floor_of = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    climbing = [
        f"{importer} imports {imported}"
        for importer, imported in _imports()
        if importer != "__init__" and floor_of[imported] > floor_of[importer]
    ]
    assert climbing == []
