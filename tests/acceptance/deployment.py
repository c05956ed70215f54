"""An installation made of real processes: workers, an API, over one database and one data directory."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from sqlalchemy import select

from service.db.engine import Database, create_database
from service.jobs.document import canonical_json, document_digest, parse_document
from service.jobs.repository import JobRepository, NewJob
from service.jobs.state import FINAL_STATES
from service.jobs.tables import JobTable
from service.results.service import ResultService
from service.settings import Settings

ROOT = Path(__file__).parents[2]
FAULTS = Path(__file__).parent / "faults"
WAIT_SECONDS = 180.0  # much more than needed, for machines that have other things to do
_POLL_SECONDS = 0.02


class Deployment:
    """What a user has installed. Leaving its context kills whatever still runs."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.database: Database = create_database(settings)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            kill_family(process)
        self.database.dispose()

    def start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start `python -m module` with these settings; its output goes to the log."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=self._environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def start_worker(self, *, kill_at: str = "", kill_whom: str = "worker") -> subprocess.Popen[bytes]:
        """Start a worker; its attempts are killed at the moments `kill_at`, see `faults/sitecustomize.py`."""
        if not kill_at:
            return self.start("worker")
        faults = {
            "PYTHONPATH": f"{FAULTS}{os.pathsep}{ROOT}",
            "SAMA_TEST_KILL_AT": kill_at,
            "SAMA_TEST_KILL_FOLDER": str(self.folder),
            "SAMA_TEST_KILL_WHOM": kill_whom,
        }
        return self.start("worker", **faults)

    def was_struck(self, moment: str) -> bool:
        """Say whether the kill at this moment has happened."""
        return (self.folder / moment).exists()

    def submit(self, document: Mapping[str, Any], **limits: Any) -> str:
        """Store a job as the API does and return its id."""
        parsed = parse_document({**document, "limits": limits} if limits else dict(document))
        new = NewJob(
            document=canonical_json(parsed),
            document_digest=document_digest(parsed),
            max_attempts=parsed.limits.max_attempts,
            max_seconds=parsed.limits.max_seconds,
        )
        with self.database.write() as session:
            return JobRepository(session).add(new).id

    def get(self, job_id: str) -> JobTable:
        """Return the job's row."""
        with self.database.read() as session:
            return JobRepository(session).get(job_id)

    def list_messages(self, job_id: str) -> list[str]:
        """Return what happened to the job, in words, oldest first."""
        with self.database.read() as session:
            return [event.message for event in JobRepository(session).list_events(job_id)]

    def wait_for(self, what: str, is_so: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Return once `is_so()`; fails with the log where that takes too long."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s for {what}; the log ends:\n{self.read_log()}")
            time.sleep(_POLL_SECONDS)

    def wait_for_state(self, job_id: str, states: Collection[str] = FINAL_STATES, seconds: float = WAIT_SECONDS) -> str:
        """Return the job's state once it is one of `states`."""
        self.wait_for(f"{job_id} to be {' or '.join(states)}", lambda: self.get(job_id).state in states, seconds)
        return self.get(job_id).state

    def wait_for_phase(self, job_id: str, phase: str) -> None:
        """Return once the job is in this phase."""
        self.wait_for(f"{job_id} to be in {phase}", lambda: self.get(job_id).phase == phase)

    def read_rows(self, job_id: str) -> bytes:
        """Return the job's `rows.parquet`."""
        return ResultService(self.database, self.settings).export_file(job_id, "rows.parquet").stored.path.read_bytes()

    def find_attempts(self, job_id: str) -> list[psutil.Process]:
        """Return the processes of this machine that run an attempt of the job."""
        return [process for process in psutil.process_iter(["cmdline"]) if job_id in (process.info["cmdline"] or ())]

    def count_held(self) -> int:
        """Return how many jobs a worker holds."""
        with self.database.read() as session:
            return len(session.scalars(select(JobTable.id).where(JobTable.lease_expires_at.is_not(None))).all())

    def read_log(self) -> str:
        """Return the end of what the processes wrote."""
        log = self.folder / "log"
        return log.read_text(errors="replace")[-20_000:] if log.exists() else ""

    def _environment(self) -> dict[str, str]:
        settings, kept = self.settings, {name: value for name, value in os.environ.items() if name[:5] != "SAMA_"}
        changed = settings.model_dump(exclude_unset=True)
        values = {f"SAMA_{name.upper()}": _as_text(value) for name, value in changed.items() if value is not None}
        return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | values


def _as_text(value: Any) -> str:
    if hasattr(value, "get_secret_value"):
        return str(value.get_secret_value())
    if isinstance(value, tuple):
        return ":".join(str(part) for part in value)
    return str(value)


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children, whatever state they are in."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.kill()
    process.wait()
    for child in children:
        if child.is_running():
            child.send_signal(signal.SIGKILL)


def write_table(path: Path, num_rows: int = 360) -> None:
    """Write a small table with three classes, a third of whose training labels is wrong, by a fixed rule."""
    lines = io.StringIO()
    lines.write("id,a,b,c,label,split\n")
    for row in range(num_rows):
        klass = row % 3
        noise = [((row * step) % 17 - 8) / 10 for step in (5, 7, 11)]
        # The rule comes back to the same numbers: without the last term every test row would stand among the curated.
        features = [noise[axis] + (2.0 if axis == klass else 0.0) + row / 100_000 for axis in range(3)]
        turn = row // 3 % 6
        split = "train" if turn < 4 else ("valid" if turn == 4 else "test")
        label = (klass + 1) % 3 if split == "train" and row % 5 == 0 else klass
        lines.write(f"r{row},{','.join(f'{value:.5f}' for value in features)},{'xyz'[label]},{split}\n")
    path.write_text(lines.getvalue())


def make_document(folder: Path, *, epochs: int = 6, with_evaluation: bool = True) -> dict[str, Any]:
    """Return a small job over a small table; with evaluation it has every phase in it."""
    path = folder / "table.csv"
    if not path.exists():
        write_table(path)
    document: dict[str, Any] = {
        "dataset": {"uri": str(path), "id": "id", "features": ["a", "b", "c"], "label": "label"}
        | {"split": {"column": "split", "value": "train"}},
        "meta": {"split": {"column": "split", "value": "valid"}},
        "test": {"split": {"column": "split", "value": "test"}},
        "task": "prune",
        "model": {"name": "linear"},
        "training": {"epochs": epochs, "batch_size": 32, "seed": 3},
        "selection": {"keep_fraction": 0.7},
    }
    evaluation = {"arms": ["full", "curated", "random"], "seeds": 1} if with_evaluation else None
    return document | {"evaluation": evaluation}
