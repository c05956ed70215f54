"""Real workers on real jobs, killed, frozen and woken on a seeded schedule, while Redis comes and goes."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.claim_chaos import find_faults
from tests.acceptance.conftest import Deploy
from tests.acceptance.deployment import Deployment, make_document
from tests.servers.redis import RedisServer

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

NUM_JOBS = 24
NUM_WORKERS = 3
MANY = 100  # attempts: chaos shall not end a job
TROUBLED_SECONDS = 30.0
SECONDS_BETWEEN_FAULTS = (1.0, 3.0)


class Chaos:
    """Does harm to an installation, one fault at a time."""

    def __init__(self, deployment: Deployment, redis_server: RedisServer, seed: int) -> None:
        self._deployment = deployment
        self._redis = redis_server
        self._schedule = random.Random(seed)
        self._workers = [deployment.start_worker() for _ in range(NUM_WORKERS)]
        self._frozen: list[tuple[float, psutil.Process]] = []
        self.log: list[str] = []

    def strike(self) -> None:
        """Do the next harm of the schedule, after making good for what has died or slept enough."""
        self._wake_frozen(time.monotonic())
        self._workers = [
            worker if worker.poll() is None else self._deployment.start_worker() for worker in self._workers
        ]
        attempts_and_workers = [self.kill_worker, self.kill_attempt, self.freeze_worker, self.freeze_attempt]
        fault = self._schedule.choice([*attempts_and_workers, self.kill_worker, self._redis.flush, self.restart_redis])
        self.log.append(fault.__name__)
        fault()

    def end(self) -> None:
        """Wake whoever is frozen and let three workers be in good health."""
        self._wake_frozen(float("inf"))
        for worker in self._workers:
            if worker.poll() is not None:
                self._deployment.start_worker()

    def kill_worker(self) -> None:
        self._schedule.choice(self._workers).kill()

    def kill_attempt(self) -> None:
        attempt = self._choose_attempt()
        if attempt is not None:
            attempt.kill()

    def freeze_worker(self) -> None:
        worker = self._schedule.choice(self._workers)
        if worker.poll() is None:
            self._freeze(psutil.Process(worker.pid))

    def freeze_attempt(self) -> None:
        attempt = self._choose_attempt()
        if attempt is not None:
            self._freeze(attempt)

    def restart_redis(self) -> None:
        self._redis.kill()
        self._redis.start()

    def _choose_attempt(self) -> psutil.Process | None:
        worker: subprocess.Popen[bytes] = self._schedule.choice(self._workers)
        try:
            children = psutil.Process(worker.pid).children()
        except psutil.NoSuchProcess:
            children = []
        return children[0] if children else None

    def _freeze(self, process: psutil.Process) -> None:
        seconds = self._deployment.settings.lease_seconds * self._schedule.uniform(0.5, 2.0)
        try:
            process.send_signal(signal.SIGSTOP)
        except psutil.NoSuchProcess:
            return
        self._frozen.append((time.monotonic() + seconds, process))

    def _wake_frozen(self, now: float) -> None:
        for wakes_at, process in self._frozen:
            if wakes_at <= now and process.is_running():
                process.send_signal(signal.SIGCONT)
        self._frozen = [(wakes_at, process) for wakes_at, process in self._frozen if wakes_at > now]


def test_every_job_succeeds_once_whatever_happens_to_the_workers(
    deploy: Deploy,
    redis_server: RedisServer,
    table_folder: Path,
    run_undisturbed: Callable[[dict[str, Any]], bytes],
    kill_round: int,
) -> None:
    document = make_document(table_folder, epochs=3, with_evaluation=False)
    undisturbed = run_undisturbed(document)
    deployment = deploy("production", checkpoint_seconds=0.05)
    job_ids = [deployment.submit(document, max_attempts=MANY) for _ in range(NUM_JOBS)]
    chaos, schedule = Chaos(deployment, redis_server, seed=kill_round), random.Random(kill_round)
    troubled_until = time.monotonic() + TROUBLED_SECONDS
    while time.monotonic() < troubled_until and not have_ended(deployment, job_ids):
        chaos.strike()
        time.sleep(schedule.uniform(*SECONDS_BETWEEN_FAULTS))
    chaos.end()
    deployment.wait_for("all jobs to end", lambda: have_ended(deployment, job_ids), seconds=900)
    assert [deployment.get(job_id).state for job_id in job_ids] == ["succeeded"] * NUM_JOBS, chaos.log
    assert find_faults(deployment.database, job_ids) == [], chaos.log
    assert {deployment.read_rows(job_id) for job_id in job_ids} == {undisturbed}


def have_ended(deployment: Deployment, job_ids: list[str]) -> bool:
    return all(deployment.get(job_id).state in {"succeeded", "failed", "cancelled"} for job_id in job_ids)
