"""The command line in this process, against a real server process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.main import run
from service.db.engine import create_database
from service.db.migrate import migrate
from service.settings import Settings
from tests.client.server import ApiServer
from tests.page.seeding import Seeder


@dataclass(frozen=True)
class Outcome:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of standard error that tell errors."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@dataclass(frozen=True)
class SeededServer:
    """A server that may read everything under the tests' folder, and a way to put jobs into it."""

    api: ApiServer
    seeder: Seeder


Sama = Callable[..., Outcome]


@pytest.fixture
def sama(capfd: pytest.CaptureFixture[str]) -> Sama:
    """Run one command as `sama` would and return its outcome."""

    def run_command(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run_command


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeededServer]:
    """One server for all tests of the command line."""
    data_dir = tmp_path_factory.mktemp("cli-data")
    settings = Settings(data_dir=data_dir)
    migrate(settings)
    database = create_database(settings)
    api = ApiServer(data_dir, {"SAMA_DATA_ROOTS": str(tmp_path_factory.getbasetemp())})
    yield SeededServer(api, Seeder(database))
    api.stop()
    database.dispose()


@pytest.fixture
def server(shared_server: SeededServer, monkeypatch: pytest.MonkeyPatch) -> SeededServer:
    """The server, with the environment that leads commands to it."""
    for name, value in shared_server.api.settings.items():
        monkeypatch.setenv(name, value)
    return shared_server


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    """Write a job document over a small table; fields replace those of the document."""

    def write(**fields: Any) -> Path:
        document: dict[str, Any] = {
            "name": "small table",
            "dataset": {
                "uri": "./data.csv",
                "id": "id",
                "features": ["a", "b"],
                "label": "label",
                "split": {"column": "split", "value": "train"},
            },
            "meta": {"split": {"column": "split", "value": "valid"}},
            "model": {"name": "linear"},
            "training": {"epochs": 2},
            "evaluation": None,
        }
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(document | fields, sort_keys=False))
        return path

    return write


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """A small table: 60 rows to curate, 20 trusted, 20 for the test; two classes."""
    splits = ["train", "train", "train", "valid", "test"]
    lines = ["id,a,b,label,split"]
    for row in range(100):
        sign = 1 if row // 5 % 2 else -1
        split = splits[row % 5]
        # The curated rows repeat; those of the test stand in no other part.
        a = sign * (1 + row % 7 / 10 + (row / 1000 if split == "test" else 0.0))
        lines.append(f"r{row},{a:.3f},{row % 3},{'up' if sign > 0 else 'down'},{split}")
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
