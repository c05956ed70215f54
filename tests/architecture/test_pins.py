"""Versions are pinned in one place, and every dependency is."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_in_constraints() -> None:
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    wanted = {_canonical(re.split(r"[\[<>=!~ ]", name)[0]) for group in groups for name in group}
    assert len(wanted) > 20
    assert wanted <= {_canonical(name) for name in PINS}


def test_pins_stand_in_constraints_alone() -> None:
    for name in ("pyproject.toml", "Makefile", "Dockerfile", ".ci/run", "docker-compose.yml"):
        assert not re.search(r"torch\s*[=<>~]=", (ROOT / name).read_text()), name
    assert PINS["torch"] == "2.13.0"
