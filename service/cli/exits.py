"""Exit codes of every command, and which error ends with which."""

from service.errors import ServiceError
from service.jobs.schemas import Job

DONE = 0
FAILED = 1
REFUSED = 2
UNREACHABLE = 3

_FAILED_CODES = {"job_failed", "job_cancelled", "process_ended", "interrupted", "check_failed"}


class JobEndedError(ServiceError):
    """A job that was waited for ended without results."""

    def __init__(self, job: Job) -> None:
        why = f": {job.error.message}" if job.error is not None else "."
        hint = job.error.hint if job.error is not None else None
        super().__init__(f"job_{job.state}", f"Job {job.id} {job.state}{why}", hint=hint)


def find_exit_code(error: ServiceError) -> int:
    """Return 1 for work that failed, 2 for a request that was refused, 3 for a server that is not there."""
    if error.code == "unreachable":
        return UNREACHABLE
    status = getattr(error, "status", None)
    if error.code in _FAILED_CODES or error.code == "digest_mismatch" or (status is not None and status >= 500):
        return FAILED
    return REFUSED
