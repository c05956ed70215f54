"""The worker's own parts: its identity, its threads, its row, one attempt at a time."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.attempts.repository import AttemptRepository
from service.attempts.workers import WorkerRepository
from service.db.engine import Database
from service.settings import Settings
from tests.service.attempts.factory import LOST, add_job, get_job
from worker.identity import WorkerIdentity, find_device, make_identity
from worker.loop import Worker
from worker.memory import count_memory_kills
from worker.outages import describe_outage
from worker.periodic import PeriodicThread

IDENTITY = WorkerIdentity("w1", "here", 1, "cpu")


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_worker_loads_neither_torch_nor_the_core() -> None:
    code = "import sys, worker.__main__; print([m for m in ('torch', 'sama_core', 'sklearn') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_worker_has_a_name_of_its_own() -> None:
    settings = Settings(device="cpu")
    first, second = make_identity(settings), make_identity(settings)
    assert first.id != second.id
    assert first.id.startswith(f"{first.hostname}-{first.process_id}-")


@pytest.mark.parametrize(
    ("program", "device", "found"),
    [
        ("echo 'NVIDIA H100 80GB HBM3'; echo 'second'", "auto", "NVIDIA H100 80GB HBM3"),
        ("echo 'NVIDIA H100 80GB HBM3'", "cpu", "cpu"),
        ("exit 9", "auto", "cpu"),
        ("exit 9", "cuda", "cuda"),
        (None, "auto", "cpu"),
    ],
)
def test_the_device_is_found_without_torch(
    program: str | None, device: Any, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program is not None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\n{program}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_device(Settings(device=device)) == found


def test_a_worker_is_known_while_it_lives_and_forgotten_after(database: Database, settings: Settings) -> None:
    def list_alive() -> list[str]:
        with database.read() as session:
            return [row.id for row in WorkerRepository(session).list_alive(60)]

    with Worker(database, settings, IDENTITY):
        wait_for(lambda: list_alive() == ["w1"])
    assert list_alive() == []


def test_a_worker_takes_one_job_after_another_and_one_at_a_time(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, order = 0, 0, []

    class PlayedSupervisor:
        def __init__(self, database: Database, _settings: Settings, claim: Any, _claimed_at: float) -> None:
            self.claim = claim

        def run(self) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            order.append(self.claim.job_id)
            time.sleep(0.02)
            with database.write() as session:
                AttemptRepository(session).fail(self.claim.job_id, self.claim.attempt, LOST)
            running -= 1

        def stop(self) -> None:
            raise AssertionError("nobody asked for that")

    monkeypatch.setattr("worker.loop.AttemptSupervisor", PlayedSupervisor)
    job_ids = sorted(add_job(database, max_attempts=1) for _ in range(4))
    worker = Worker(database, settings, IDENTITY)
    threads = [threading.Thread(target=worker.work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert order == job_ids
    assert most == 1


def test_a_worker_that_stops_takes_no_more_jobs(database: Database, settings: Settings) -> None:
    job_id = add_job(database)
    worker = Worker(database, settings, IDENTITY)
    worker.stop()
    worker.work()
    assert get_job(database, job_id).attempt == 0


def test_a_periodic_thread_goes_on_after_outages_and_surprises(caplog: pytest.LogCaptureFixture) -> None:
    surprises: list[Exception] = [OperationalError("SELECT", {}, Exception("away")), ValueError("surprise")]
    calls = []

    def act() -> None:
        calls.append(time.monotonic())
        if surprises:
            raise surprises.pop(0)

    with PeriodicThread("test", 0.01, act):
        wait_for(lambda: len(calls) >= 5)
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count, "it goes on after it was stopped"


def test_a_periodic_thread_can_be_woken() -> None:
    called = threading.Semaphore(0)
    with PeriodicThread("test", 600, called.release) as thread:
        assert called.acquire(timeout=10)
        thread.wake()
        assert called.acquire(timeout=10)


def test_the_kernels_count_of_memory_kills_is_read(tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("nr_free_pages 12\noom_kill 3\n")
    assert count_memory_kills(counters) == 3
    counters.write_text("nr_free_pages 12\n")
    assert count_memory_kills(counters) is None
    assert count_memory_kills(tmp_path / "missing") is None


def test_an_outage_is_described_without_the_statement() -> None:
    error = OperationalError("SELECT secret FROM job", {}, ConnectionError("server closed\nthe connection"))
    assert describe_outage(error) == "ConnectionError: server closed"
    assert describe_outage(ValueError()) == "ValueError: no reason given"
