"""The Dockerfile and the compose file, held against the code. Docker itself is not run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = ("migrate", "api", "worker")


def test_the_services_are_complete() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "redis", *OURS}
    for name in ("postgres", "redis", "api", "worker"):
        assert COMPOSE["services"][name]["healthcheck"]["test"]
    assert COMPOSE["services"]["api"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_every_environment_variable_is_a_setting() -> None:
    known = {f"SAMA_{name.upper()}" for name in Settings.model_fields}
    used = {name for service in OURS for name in COMPOSE["services"][service]["environment"]}
    used |= set(re.findall(r"\b(SAMA_[A-Z_]+)=", DOCKERFILE))
    assert used
    assert used <= known


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = re.findall(r"\$\{(POSTGRES_PASSWORD|REDIS_PASSWORD|SAMA_API_KEY)([^}]*)\}", text)
    assert len(secrets) >= 3
    assert all(rest.startswith(":?") for _, rest in secrets)


def test_the_images_are_targets_and_run_as_a_user() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    assert {COMPOSE["services"][name]["build"]["target"] for name in OURS} <= targets
    assert DOCKERFILE.count("USER sama") == 2
    assert "-c constraints.txt" in DOCKERFILE


def _commands() -> list[list[str]]:
    commands: list[Any] = [COMPOSE["services"][name]["command"] for name in OURS]
    commands += [COMPOSE["services"][name]["healthcheck"]["test"][1:] for name in ("api", "worker")]
    return [list(command) for command in commands]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_names_a_module_that_can_be_run(command: list[str]) -> None:
    assert command[:2] == ["python", "-m"]
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({command[2]!r}) is None)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
