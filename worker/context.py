"""What every phase of an attempt is given."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim
from service.db.engine import Database
from service.jobs.document import JobDocument
from service.settings import Settings
from worker.checkpoints import Checkpoint, CheckpointStore
from worker.data.arrays import ArrayFolder
from worker.progress import ProgressWriter
from worker.schedule import Budget
from worker.stop import AttemptStopped, StopFlag


@dataclass(frozen=True)
class AttemptContext:
    """The job, the settings, and the ways out: progress, the database, a folder for encoded data, the stop flag, and
    the time that is left."""

    claim: Claim
    document: JobDocument
    settings: Settings
    database: Database
    device: torch.device
    progress: ProgressWriter
    stop: StopFlag
    folder: ArrayFolder
    budget: Budget


class StepBoundary:
    """What happens between two steps: a checkpoint where one is due, and the end where a stop was asked for."""

    def __init__(
        self, context: AttemptContext, store: CheckpointStore, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._context = context
        self._store = store
        self._clock = clock
        self._saved_at = clock()

    def cross(self, make_checkpoint: Callable[[], Checkpoint]) -> None:
        """Save the state that `make_checkpoint` gives if it is time; raises AttemptStopped if a stop was asked for."""
        if self._context.stop.is_set:
            self.save(make_checkpoint())
            raise AttemptStopped
        if self._clock() - self._saved_at >= self._context.settings.checkpoint_seconds:
            self.save(make_checkpoint())

    def save(self, checkpoint: Checkpoint) -> None:
        """Save a checkpoint, point the job at it, then remove the older ones. The curves up to it are written first."""
        self._context.progress.flush()
        path = self._store.save(checkpoint)
        claim = self._context.claim
        with self._context.database.write() as session:
            AttemptRepository(session).set_checkpoint(claim.job_id, claim.attempt, path, checkpoint.step)
        self._store.prune(path)
        self._saved_at = self._clock()
