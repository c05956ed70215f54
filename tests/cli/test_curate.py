"""`sama curate` and `sama validate` as processes: the whole job, and nothing left behind however it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.acceptance

WriteSpec = Callable[..., Path]
WAIT_SECONDS = 120.0


def _sama(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "service.cli", *(str(argument) for argument in arguments)]


def _run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_sama(*arguments), cwd=cwd, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)


@pytest.fixture(autouse=True)
def _private_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything temporary lie where the test can see that it is gone; keep torch off the other cores."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("SAMA_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def _wait(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_job_runs_from_document_to_verified_bundle(write_spec: WriteSpec, data_path: Path, tmp_path: Path) -> None:
    spec = write_spec(
        task="prune",
        test={"split": {"column": "split", "value": "test"}},
        evaluation={"arms": ["full", "curated", "random"], "seeds": 2},
    )
    out = tmp_path / "deep" / "bundle"
    done = _run("curate", spec, "--out", out, "--set", "selection.keep_fraction=0.5", "--json", cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout.splitlines()[-1])
    assert (fields["bundle"], fields["job"]["state"]) == (str(out), "succeeded")
    assert fields["summary"]["selection"]["n_kept"] == 30
    assert len(list(out.iterdir())) == 8
    assert "data: 60 to curate, 20 trusted, 20 for the test, 2 classes" in done.stderr
    assert "arm curated, seed 2: test accuracy" in done.stderr
    assert "succeeded · 100%" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]

    same = _run("verify", out, "--data", data_path)
    assert same.returncode == 0, same.stderr
    assert "the same 60 rows as the bundle was made from" in same.stdout

    again = _run("curate", spec, "--out", out)
    assert again.returncode == 2
    assert "holds a bundle already" in again.stderr

    lines = data_path.read_text().splitlines()
    lines[8] = lines[8].replace("up", "down") if "up" in lines[8] else lines[8].replace("down", "up")
    data_path.write_text("\n".join(lines) + "\n")
    other = _run("verify", out, "--data", data_path)
    assert other.returncode == 1
    # Line 9 of the file is row 7 of its rows, and the fifth or sixth that is curated.
    row = next(row for row in pq.read_table(out / "rows.parquet").to_pylist() if row["id"] == "r7")
    assert f"error: row {row['row']} of {data_path} differs in its given label" in other.stderr


def test_the_summary_is_for_people_and_a_kept_job_stays_to_be_served(
    write_spec: WriteSpec, data_path: Path, tmp_path: Path
) -> None:
    spec, data_dir = write_spec(), tmp_path / "kept"
    done = _run("curate", spec, "--out", tmp_path / "out", "--data-dir", data_dir)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["keep", "60", "100.0%"] in lines
    assert f"bundle:  {tmp_path / 'out'} (8 files, 60 rows, 60 kept; every digest holds" in done.stdout
    assert (data_dir / "sama.db").exists()
    once_more = _run("curate", spec, "--out", tmp_path / "out", "--data-dir", data_dir, "--overwrite")
    assert once_more.returncode == 0, once_more.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "job.yaml", "kept", "out", "tmp"]


def test_a_refusal_leaves_nothing_behind(write_spec: WriteSpec, data_path: Path, tmp_path: Path) -> None:
    data_path.write_text(data_path.read_text() + "r100,1,2\n")
    before = sorted(tmp_path.rglob("*"))
    refused = _run("curate", write_spec(), "--out", tmp_path / "new" / "out")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "line 102 has 3 values; the header has 5" in refused.stderr
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "job.yaml"])


def test_the_dry_run_tells_everything_and_leaves_nothing(
    write_spec: WriteSpec, data_path: Path, tmp_path: Path
) -> None:
    before = sorted([*tmp_path.rglob("*"), tmp_path / "job.yaml"])
    done = _run("validate", write_spec(test={"split": {"column": "split", "value": "test"}}))
    assert done.returncode == 0, done.stderr
    for words in (
        "csv, 100 rows",
        "2 classes: down (30), up (30)",
        "repeat an earlier one exactly",
        "estimate: about",
        "valid: this job can run",
    ):
        assert words in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["to", "curate", "60", "60", "0"] in rows
    assert sorted(tmp_path.rglob("*")) == before


def test_a_data_directory_has_one_user_at_a_time(write_spec: WriteSpec, data_path: Path, tmp_path: Path) -> None:
    from service.cli.embedded import lock_data_directory

    with lock_data_directory(tmp_path / "kept"):
        refused = _run("curate", write_spec(), "--out", tmp_path / "out", "--data-dir", tmp_path / "kept")
    assert refused.returncode == 2
    assert "is in use by another `sama serve` or `sama curate`" in refused.stderr


class RunningCuration:
    """A `sama curate` in the middle of a long job."""

    def __init__(self, spec: Path, out: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as sink:
            command = _sama("curate", spec, "--out", out, "--set", "training.epochs=10000")
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink)
        _wait(lambda: "training" in _read(log) or self.process.poll() is not None, "the training to begin")
        assert self.process.poll() is None, _read(log)
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def living(self) -> Sequence[psutil.Process]:
        """Return those of the processes it had started that still run."""
        return [child for child in self.family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def running(write_spec: WriteSpec, data_path: Path, tmp_path: Path) -> RunningCuration:
    """A long job under way: API, worker and attempt are running."""
    running = RunningCuration(write_spec(), tmp_path / "out", tmp_path / "log")
    assert len(running.family) >= 3
    return running


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_is_cancelled_and_leaves_nothing(
    running: RunningCuration, tmp_path: Path, signal_number: signal.Signals
) -> None:
    running.process.send_signal(signal_number)
    assert running.process.wait(WAIT_SECONDS) == 1
    assert "was cancelled and no bundle was written" in _read(running.log)
    assert running.living() == []
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_outlives_a_command_that_is_killed(running: RunningCuration, tmp_path: Path) -> None:
    running.process.kill()
    running.process.wait()
    _wait(lambda: running.living() == [], "every process to end")
    assert not (tmp_path / "out").exists()


def test_a_worker_that_dies_ends_the_command_with_a_message(running: RunningCuration, tmp_path: Path) -> None:
    workers = [child for child in running.family if child.cmdline()[-1] == "worker"]
    assert len(workers) == 1
    with contextlib.suppress(psutil.NoSuchProcess):
        os.kill(workers[0].pid, signal.SIGKILL)
    assert running.process.wait(WAIT_SECONDS) == 1
    assert "error: The worker process ended unexpectedly (killed by signal 9)" in _read(running.log)
    assert running.living() == []
    assert not (tmp_path / "out").exists()
