"""A job whose training several processes share: the same result, and nothing left running when one of them is lost."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.db.engine import Database
from service.jobs.repository import JobRepository
from service.settings import Settings
from tests.worker.jobs import (
    claim_job,
    compare_results,
    list_messages,
    make_document,
    queue_job,
    read_result,
    release,
    run_claimed,
    run_to_end,
    write_points,
)
from worker.exits import DONE, FAILED, STOPPED
from worker.stop import StopFlag

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two cores make two devices; this machine has one"),
]

Document = Callable[..., dict[str, Any]]


@pytest.fixture
def document(tmp_path: Path) -> Document:
    """Return a job of some seconds without an evaluation, on a network without random numbers of its own."""
    points = write_points(tmp_path / "points.parquet")

    def make(num_devices: int, **training: Any) -> dict[str, Any]:
        return make_document(
            points,
            evaluation=None,
            test=None,
            model={"name": "linear"},
            training={"epochs": 3, "batch_size": 20, **training},
            resources={"devices": num_devices},
        )

    return make


@pytest.fixture
def eager(settings: Settings) -> Settings:
    """Settings with a checkpoint every now and then in a training of seconds."""
    return settings.model_copy(update={"checkpoint_seconds": 0.2, "num_threads": 2})


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert not find_ranks()


def find_ranks() -> list[psutil.Process]:
    """Return the ranks that this process has started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "worker.rank" in child.cmdline()]


def after_a_checkpoint(database: Database, job_id: str, act: Callable[[], None]) -> threading.Thread:
    """Act, in a thread, once a checkpoint of the job is in force."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with database.read() as session:
                if JobRepository(session).get(job_id).checkpoint_step:
                    act()
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("seeds", [1, 2])
def test_two_devices_give_what_one_gives(
    database: Database, settings: Settings, document: Document, seeds: int
) -> None:
    shared, alone = (
        run_to_end(database, settings, document(number) | {"method": {"seeds": seeds}}) for number in (2, 1)
    )
    compare_results(database, shared, alone)
    assert "training on 2 devices" in list_messages(database, shared)
    assert [read_result(database, job)[0].manifest["method"]["facts"]["num_processes"] for job in (shared, alone)] == [
        2,
        1,
    ]


def test_a_job_begun_on_two_devices_goes_on_with_one(
    database: Database, eager: Settings, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queue_job(database, document(2, epochs=30))
    claim, stop = claim_job(database), StopFlag()
    stopping = after_a_checkpoint(database, job_id, stop.set)
    assert run_claimed(database, eager, claim, stop) == STOPPED
    stopping.join()
    assert not find_ranks()
    release(database, claim)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})
    assert run_claimed(database, eager, claim_job(database)) == DONE
    messages = list_messages(database, job_id)
    assert "training on 1 device; 2 were asked for, this worker has 1" in messages
    assert any(message.startswith("resumed from step") for message in messages)
    monkeypatch.undo()
    compare_results(database, job_id, run_to_end(database, eager, document(1, epochs=30)))


def test_a_killed_rank_loses_the_attempt_and_the_next_goes_on(
    database: Database, eager: Settings, document: Document
) -> None:
    job_id = queue_job(database, document(2, epochs=30))
    striking = after_a_checkpoint(database, job_id, lambda: find_ranks()[0].send_signal(signal.SIGKILL))
    assert run_claimed(database, eager, claim_job(database)) == FAILED
    striking.join()
    assert not find_ranks()
    assert run_claimed(database, eager, claim_job(database)) == DONE
    messages = list_messages(database, job_id)
    assert any("ended without a word or stopped answering" in message for message in messages)
    assert any(message.startswith("resumed from step") for message in messages)


def test_batches_too_small_to_share_are_refused(database: Database, settings: Settings, document: Document) -> None:
    job_id = queue_job(database, document(2, batch_size=1))
    assert run_claimed(database, settings, claim_job(database)) == FAILED
    with database.read() as session:
        job = JobRepository(session).get(job_id)
    assert (job.error_code, job.error_message) == (
        "invalid_document",
        "batch_size: the smallest batch has 1 examples; wanted at least 2, one for each process.",
    )
