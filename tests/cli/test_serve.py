"""`sama serve` as a process, and the round trip of a job through it."""

import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.conftest import Sama

pytestmark = pytest.mark.acceptance

WAIT_SECONDS = 120.0


class RunningService:
    """A `sama serve` on a free port, with what it said."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = folder / "serve.log"
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(self.port), "--data-dir", str(data_dir)]
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(command, cwd=folder, stdout=sink, stderr=sink)
        self.wait(lambda: "Ctrl-C stops it" in self.text or self.process.poll() is not None, "the greeting")
        assert self.process.poll() is None, self.text
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    @property
    def url(self) -> str:
        """The address it says it has."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def text(self) -> str:
        """What it has written."""
        return self.log.read_text()

    def wait(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.text}"
            time.sleep(0.05)

    def living(self) -> list[psutil.Process]:
        """Return those of its processes that still run."""
        return [child for child in self.family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningService]:
    """The service, with its data sets in the folder it was started in."""
    monkeypatch.setenv("SAMA_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SAMA_POLL_SECONDS", "0.1")
    service = RunningService(tmp_path, tmp_path / "sama-data")
    yield service
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(WAIT_SECONDS)


def test_a_job_goes_round_from_submit_to_verify(
    service: RunningService,
    sama: Sama,
    write_spec: Callable[..., Path],
    data_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key_path = tmp_path / "sama-data" / "api-key"
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert key_path.read_text().strip() in service.text
    found = re.search(r"http://127\.0\.0\.1:\d+/login\?token=\S+", service.text)
    assert found is not None
    with httpx.Client(follow_redirects=True) as browser:
        assert browser.get(found[0]).status_code == 200
        assert "Jobs" in browser.get(service.url).text

    monkeypatch.setenv("SAMA_URL", service.url)
    monkeypatch.setenv("SAMA_API_KEY", key_path.read_text().strip())
    submitted = sama("submit", write_spec(), "--wait", "--json")
    assert submitted.code == 0, submitted.err
    job_id = sama("jobs", "--state", "succeeded").out.split("\n")[1].split()[0]
    assert sama("download", job_id, "--out", tmp_path / "bundle").code == 0
    verified = sama("verify", tmp_path / "bundle", "--data", data_path)
    assert verified.code == 0, verified.err
    assert "the same 60 rows" in verified.out


def test_ctrl_c_stops_everything_in_good_order(service: RunningService) -> None:
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(WAIT_SECONDS) == 0
    assert service.living() == []


def test_when_the_worker_dies_the_api_is_stopped_with_a_message(service: RunningService) -> None:
    (worker,) = [child for child in service.family if child.cmdline()[-1] == "worker"]
    worker.kill()
    assert service.process.wait(WAIT_SECONDS) == 1
    assert "error: The worker process ended unexpectedly (killed by signal 9)" in service.text
    assert service.living() == []


def test_a_port_that_is_taken_is_told(service: RunningService, sama: Sama, tmp_path: Path) -> None:
    outcome = sama("serve", "--port", service.port, "--data-dir", tmp_path / "other")
    assert outcome.code == 2
    assert f"Nothing can listen on 127.0.0.1 port {service.port}: Address already in use." in outcome.err
    assert not (tmp_path / "other").exists()
