"""The sweep, and the ending of processes that hold on to what is no longer theirs."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from service.attempts.tables import WorkerTable
from service.db import engine
from service.db.engine import Database
from service.jobs.state import JobState
from tests.service.attempts.factory import add_job, claim_one, expire_lease, get_job
from worker.child import make_command
from worker.holders import kill_attempt, kill_frozen_worker
from worker.sweeper import Sweeper

HOSTNAME = socket.gethostname()

# Takes the write lock of the SQLite file when told to, and says so.
HOLDER = """
import sqlite3, sys, time
print("started", flush=True)
input()
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("holding", flush=True)
time.sleep(600)
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def start_holder(processes: list[subprocess.Popen[str]], database: Database, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that can hold the database's write lock."""
    command = [sys.executable, "-c", HOLDER, str(database.url.database), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes.append(process)
    # Between fork and exec a child still bears its parent's command line.
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    return process


def freeze_holding(process: subprocess.Popen[str]) -> None:
    """Let the process take the lock, and freeze it."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("now\n")
    process.stdin.close()
    assert process.stdout.readline() == "holding\n"
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)


def expire_one(database: Database, worker_id: str = "w1") -> str:
    job_id = add_job(database)
    claim_one(database, worker_id)
    expire_lease(database, job_id)
    return job_id


def test_every_expired_lease_is_ended(database: Database) -> None:
    expired = [expire_one(database) for _ in range(3)]
    kept = add_job(database)
    claim_one(database)
    Sweeper(database, HOSTNAME).sweep()
    assert [get_job(database, job_id).state for job_id in expired] == [JobState.QUEUED] * 3
    assert get_job(database, kept).state == JobState.VALIDATING


def test_a_sweep_of_nothing_writes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    write = database.write
    monkeypatch.setattr(database, "write", lambda: opened.append("write") or write())
    Sweeper(database, HOSTNAME).sweep()
    assert opened == []


def test_a_frozen_attempt_that_holds_an_sqlite_file_is_ended(
    sqlite_url: str, processes: list[subprocess.Popen[str]]
) -> None:
    database = Database(sqlite_url)
    job_id = expire_one(database)
    holder = start_holder(processes, database, *make_command(job_id, 1, ends_at=50.0)[-4:])
    freeze_holding(holder)
    Sweeper(database, HOSTNAME).sweep()
    assert get_job(database, job_id).state == JobState.QUEUED
    assert holder.wait(5) == -signal.SIGKILL
    database.dispose()


def test_a_frozen_worker_that_holds_an_sqlite_file_is_ended(
    sqlite_url: str, processes: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0.2)
    database = Database(sqlite_url)
    job_id = expire_one(database, "frozen")
    holder = start_holder(processes, database)
    with database.write() as session:
        session.add(WorkerTable(id="frozen", hostname=HOSTNAME, process_id=holder.pid, device="cpu"))
    freeze_holding(holder)
    sweeper = Sweeper(database, HOSTNAME)
    with pytest.raises(OperationalError, match="database is locked"):
        sweeper.sweep()
    assert holder.wait(5) == -signal.SIGKILL
    sweeper.sweep()
    assert get_job(database, job_id).state == JobState.QUEUED
    database.dispose()


def test_only_the_attempt_that_is_meant_is_killed(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    other = start_holder(processes, database, *make_command("job_x", 2, ends_at=50.0)[-4:])
    assert not kill_attempt("job_x", 1)
    assert not kill_attempt("job", 2)
    assert other.poll() is None
    assert kill_attempt("job_x", 2)
    assert other.wait(5) == -signal.SIGKILL
    database.dispose()


@pytest.mark.parametrize(("is_frozen", "hostname", "is_killed"), [
    (True, HOSTNAME, True), (False, HOSTNAME, False), (True, "elsewhere", False),
])  # fmt: skip
def test_only_a_frozen_worker_of_this_machine_is_killed(
    processes: list[subprocess.Popen[str]], is_frozen: bool, hostname: str, is_killed: bool
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    processes.append(process)
    if is_frozen:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    row = WorkerTable(id="w", hostname=hostname, process_id=process.pid, device="cpu")
    assert kill_frozen_worker(row, HOSTNAME) is is_killed


def test_a_worker_that_is_gone_is_nobody_to_kill() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not kill_frozen_worker(
        WorkerTable(id="w", hostname=HOSTNAME, process_id=process.pid, device="cpu"), HOSTNAME
    )
