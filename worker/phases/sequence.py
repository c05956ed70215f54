"""The phases of an attempt, one after the other."""

import json
import shutil
import time
from pathlib import Path

import torch

from service.attempts.repository import AttemptRepository
from service.attempts.state import Claim
from service.db.engine import Database
from service.jobs.document import parse_document
from service.settings import Settings
from worker.checkpoints import Checkpoint, CheckpointStore, CheckpointUnusableError
from worker.context import AttemptContext, StepBoundary
from worker.data.arrays import ArrayFolder
from worker.devices import limit_threads
from worker.models.defaults import find_defaults
from worker.phases.evaluating import evaluate
from worker.phases.reading import read_data
from worker.phases.scoring import score
from worker.phases.storing import store_results
from worker.phases.training import train
from worker.phases.validating import validate
from worker.progress import ProgressWriter
from worker.schedule import Budget, find_cut
from worker.stop import StopFlag


def run_phases(
    database: Database,
    settings: Settings,
    job_id: str,
    attempt: int,
    *,
    device: torch.device,
    stop: StopFlag,
    ends_at: float | None = None,
) -> None:
    """Carry out an attempt that holds its job, from the document to the committed results.

    Its time is up when `time.monotonic()` reaches `ends_at`; None counts the job's time limit from here.

    Raises:
        StaleAttemptError: the attempt does not hold the job, or no longer.
        AttemptStopped: a stop was asked for; what was reached is in a checkpoint.
    """
    with database.write() as session:
        claim = AttemptRepository(session).get_claim(job_id, attempt)
    if ends_at is None:
        ends_at = time.monotonic() + claim.max_seconds - claim.used_seconds
    progress = ProgressWriter(database, job_id, attempt, min_seconds=settings.progress_seconds)
    with ArrayFolder(_make_room(settings.data_dir, claim), stop.check) as folder:
        document = parse_document(json.loads(claim.document))
        context = AttemptContext(
            claim, document, settings, database, device, progress, stop, folder, Budget(claim.max_seconds, ends_at)
        )
        _run(context)


def _run(context: AttemptContext) -> None:
    found = validate(context)
    data = read_data(context, found)
    claim = context.claim
    store = CheckpointStore(context.settings.data_dir, claim.job_id, claim.attempt, data.fingerprint)
    saved = _load_checkpoint(context, store)
    if saved is not None:
        data = data.shorten(find_cut(saved.values))
    boundary = StepBoundary(context, store)
    with limit_threads(context.device, context.settings, find_defaults(data.choice.name).num_threads):
        data, training = train(context, data, saved, boundary)
        outcome = score(context, data, training, saved, boundary)
        evaluation = evaluate(context, data, outcome, saved, boundary)
        store_results(context, data, outcome, evaluation)
    store.remove_all()


def _load_checkpoint(context: AttemptContext, store: CheckpointStore) -> Checkpoint | None:
    path = context.claim.checkpoint_path
    if path is None:
        return None
    try:
        checkpoint = store.load(path)
    except CheckpointUnusableError as exc:
        context.progress.add_event("checkpoint", f"the checkpoint cannot be used ({exc}); starting from the beginning")
        return None
    context.progress.add_event("checkpoint", f"resumed from step {checkpoint.step} ({checkpoint.stage})")
    return checkpoint


def _make_room(data_dir: Path, claim: Claim) -> Path:
    """Return this attempt's folder for encoded data; those of earlier attempts, which were killed, are removed."""
    job_folder = data_dir / "encoded" / claim.job_id
    for earlier in job_folder.glob("*"):
        shutil.rmtree(earlier, ignore_errors=True)
    return job_folder / str(claim.attempt)
