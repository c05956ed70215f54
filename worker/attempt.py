"""One attempt of a job, in a process of its own: `python -m worker.attempt JOB_ID ATTEMPT ENDS_AT`.

The supervisor that started it holds the lease and the other end of standard input; when that closes, this process
ends at once. SIGTERM asks for a checkpoint at the next step boundary. The exit code says how it ended (`exits`).
"""

import os
import resource
import sys
from collections.abc import Sequence

import structlog

from service.attempts.repository import AttemptRepository
from service.db.engine import Database, create_database
from service.errors import StaleAttemptError
from service.logging import configure_logging, get_logger
from service.settings import Settings
from worker.exits import DONE, FAILED, STALE, STOPPED
from worker.failures import describe_failure
from worker.stop import AttemptStopped, StopFlag, watch_parent

_log = get_logger(__name__)


def run_attempt(
    database: Database, settings: Settings, job_id: str, attempt: int, stop: StopFlag, *, ends_at: float | None = None
) -> int:
    """Carry out the attempt and return its exit code. Whatever goes wrong is written to the job's row first.

    Its time is up when `time.monotonic()` reaches `ends_at`; None counts the job's time limit from here.
    """
    try:
        # torch and everything on it load here, so that a broken installation is a written failure, too.
        from worker.devices import prepare_device
        from worker.phases.sequence import run_phases

        device = prepare_device(settings)
        run_phases(database, settings, job_id, attempt, device=device, stop=stop, ends_at=ends_at)
    except AttemptStopped:
        _log.info("attempt stopped as asked")
        return STOPPED
    except StaleAttemptError as exc:
        _log.warning("attempt no longer holds its job", reason=exc.message)
        return STALE
    except Exception as exc:  # noqa: BLE001 (the outermost guard of the attempt's process)
        return _write_failure(database, job_id, attempt, exc)
    return DONE


def _write_failure(database: Database, job_id: str, attempt: int, error: Exception) -> int:
    failure = describe_failure(error)
    # Without memory nothing could be written, least of all that there is none left.
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    _log.error("attempt failed", code=failure.code, exc_info=error)
    try:
        with database.write() as session:
            AttemptRepository(session).fail(job_id, attempt, failure)
    except StaleAttemptError:
        return STALE
    return FAILED


def main(arguments: Sequence[str]) -> int:
    """Run the attempt that the command line names."""
    job_id, attempt, ends_at = arguments[0], int(arguments[1]), float(arguments[2])
    watch_parent(STALE)
    # Threads that spin while they wait slow each other down tenfold on a busy machine; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stop = StopFlag()
    stop.listen()
    settings = Settings()
    configure_logging(settings, "attempt")
    structlog.contextvars.bind_contextvars(job_id=job_id, attempt=attempt)
    database = create_database(settings)
    try:
        return run_attempt(database, settings, job_id, attempt, stop, ends_at=ends_at)
    finally:
        database.dispose()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
