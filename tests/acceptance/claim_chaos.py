"""Many workers on one job table, all of them unreliable: a simulation on the repository alone, and its check."""

import random
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import select

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim
from service.db.engine import Database
from service.errors import StaleAttemptError
from service.jobs.repository import JobRepository
from service.jobs.state import JobState
from service.jobs.tables import JobTable
from service.results.tables import ChunkTable, ResultTable
from tests.service.attempts.factory import LOST, make_chunk, make_result

LEASE_SECONDS = 0.25
NUM_WORKERS = 6

# What a job's life must look like in its events, which are in the order of the commits.
_LIFE = re.compile(r"queued (claimed again )*claimed succeeded")


@dataclass
class ClaimChaos:
    """Workers that crash, freeze past their lease and wake, or lose their attempts, on a seeded schedule."""

    database: Database
    seed: int
    repository: type[AttemptRepository] = AttemptRepository

    def run(self, job_ids: Sequence[str]) -> None:
        """Let the workers loose until every job has ended."""
        done = threading.Event()
        sweeper = threading.Thread(target=self._sweep, args=(done,))
        sweeper.start()
        with ThreadPoolExecutor(NUM_WORKERS) as pool:
            workers = [pool.submit(self._work, number, done) for number in range(NUM_WORKERS)]
            while not done.wait(0.05):
                failed = [worker for worker in workers if worker.done()]
                if failed or self._have_ended(job_ids):
                    done.set()
        sweeper.join()
        for worker in workers:
            worker.result()

    def _have_ended(self, job_ids: Sequence[str]) -> bool:
        with self.database.read() as session:
            return JobRepository(session).count_states() == {JobState.SUCCEEDED: len(job_ids)}

    def _sweep(self, done: threading.Event) -> None:
        while not done.wait(LEASE_SECONDS / 5):
            with self.database.write() as session:
                repository = AttemptRepository(session)
                for lease in repository.list_expired():
                    repository.fail(lease.job_id, lease.attempt, LOST)

    def _work(self, number: int, done: threading.Event) -> None:
        schedule = random.Random(f"{self.seed}-{number}")
        while not done.is_set():
            with self.database.write() as session:
                claim = self.repository(session).claim(f"w{number}", LEASE_SECONDS)
            if claim is None:
                done.wait(0.01)
                continue
            try:
                self._live(claim, schedule, done)
            except StaleAttemptError:
                continue

    def _live(self, claim: Claim, schedule: random.Random, done: threading.Event) -> None:
        """Do the work of one attempt, or what fate has in store for it."""
        fate = schedule.random()
        with self.database.write() as session:
            self.repository(session).add_chunk(make_chunk(claim.job_id, claim.attempt))
        if fate < 0.12:
            return  # killed: nobody hears of it again
        if fate < 0.24:
            done.wait(LEASE_SECONDS * (1 + schedule.random()))  # frozen: it wakes when its lease is over
        elif fate < 0.3:
            with self.database.write() as session:
                self.repository(session).fail(claim.job_id, claim.attempt, LOST)
            return
        with self.database.write() as session:
            self.repository(session).complete(make_result(claim.job_id, claim.attempt), [])


def find_faults(database: Database, job_ids: Sequence[str]) -> list[str]:
    """Return, in words, every job that was lost, run by two at once, completed twice, or left in pieces."""
    faults = []
    with database.read() as session:
        chunks = session.execute(select(ChunkTable.job_id, ChunkTable.attempt)).all()
        results = {result.job_id: result.attempt for result in session.scalars(select(ResultTable))}
        for job_id in job_ids:
            job = session.get_one(JobTable, job_id)
            events = JobRepository(session).list_events(job_id)
            life = " ".join(_name(event.message) for event in events if event.kind == "state")
            if not _LIFE.fullmatch(life):
                faults.append(f"{job_id} lived: {life}")
            if results.get(job_id) != job.result_attempt or job.result_attempt is None:
                faults.append(f"{job_id} has the result of {results.get(job_id)}, not of {job.result_attempt}")
            if [row.attempt for row in chunks if row.job_id == job_id] != [job.result_attempt]:
                faults.append(f"{job_id} has chunks of other attempts")
    return faults


def _name(message: str) -> str:
    if "claimed by worker" in message:
        return "claimed"
    return "again" if message.startswith("queued again") else message
