"""The one table of failures: exception -> code, message for the user, hint, retryable or not.

The supervisor reads this table too and must not load torch, so exceptions of torch and of the library are
known here by their qualified names.
"""

import errno
from collections.abc import Callable, Mapping

from service.attempts.state import Failure
from service.errors import ServiceError

WORKER_LOST = Failure(
    "worker_lost",
    "The worker process ended without a word: it was killed, or its machine went away.",
    "The job goes on from its last checkpoint while attempts are left; look for the reason in the worker's log.",
    retryable=True,
)
RANK_LOST = Failure(
    "worker_lost",
    "One of the processes that shared the job's training ended without a word or stopped answering.",
    "The job goes on from its last checkpoint while attempts are left; look for the reason in the worker's log.",
    retryable=True,
)
TIME_LIMIT = Failure(
    "time_limit",
    "The job used up its time limit.",
    "Raise limits.max_seconds or lower training.epochs, then resume the job: it goes on from its last checkpoint.",
)
OUT_OF_MEMORY = Failure(
    "out_of_memory",
    "The attempt ran out of memory.",
    "Lower training.batch_size, take a smaller model, or run on a machine with more memory.",
)
DISK_FULL = Failure(
    "disk_full",
    "The disk of the worker's data directory is full.",
    "Make room on the disk, then resume the job: it goes on from its last checkpoint.",
)
DATABASE_UNAVAILABLE = Failure(
    "database_unavailable",
    "The database could not be reached or did not answer in time.",
    "The job goes on from its last checkpoint while attempts are left.",
    retryable=True,
)

_NON_FINITE_HINT = (
    "Lower training.lr, look for extreme values in the features, or raise method.warmup_steps; "
    "then submit the job again."
)
_INTERNAL_HINT = "The worker's log has the details under the job's id; resume the job once the reason is mended."
_DATA_HINT = "Mend the data or the document, then submit the job again."
_DOCUMENT_HINT = "Mend the document, then submit it again."
_OUT_OF_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
_DISK_FULL_WORDS = ("disk is full", "no space left", "could not extend file")


def describe_slow_start(start_seconds: float, max_seconds: float) -> Failure:
    """Return that the time limit ended a job before its training could start."""
    return Failure(
        TIME_LIMIT.code,
        "The job used up its time limit before its training could start: start-up and reading took "
        f"{start_seconds:,.1f} s of {max_seconds:,.0f} s.",
        "Raise limits.max_seconds, then submit the job again.",
    )


def describe_failure(error: BaseException) -> Failure:
    """Return the failure that the table has for this exception, by its class or the nearest base class."""
    for kind in type(error).__mro__:
        describe = _TABLE.get(f"{kind.__module__}.{kind.__qualname__}")
        failure = describe(error) if describe else None
        if failure is not None:
            return failure
    return Failure("internal_error", f"The attempt met an unexpected error ({type(error).__name__}).", _INTERNAL_HINT)


def _of_service(error: BaseException) -> Failure:
    assert isinstance(error, ServiceError)
    return Failure(error.code, error.message, error.hint or _DOCUMENT_HINT)


def _of_data(error: BaseException) -> Failure:
    assert isinstance(error, ServiceError)
    code = error.code if error.code in _PATH_CODES else "bad_data"
    return Failure(code, error.message, error.hint or _DATA_HINT)


def _of_rank(error: BaseException) -> Failure:
    failure = getattr(error, "failure", None)
    return failure if isinstance(failure, Failure) else RANK_LOST


def _of_core(error: BaseException) -> Failure:
    return Failure("invalid_document", f"{error}.".replace("..", "."), _DOCUMENT_HINT)


def _of_package(error: BaseException) -> Failure:
    package = getattr(error, "package", "an optional package")
    hint = f"Install the extra {package} on the worker (pip install -c constraints.txt '.[worker,{package}]'), or take "
    return Failure("missing_package", f"{error}.", f"{hint}another method; then submit the job again.")


def _of_non_finite(error: BaseException) -> Failure:
    step = getattr(error, "step", None)
    where = f" at step {step}" if step is not None else ""
    return Failure("non_finite_loss", f"The training loss stopped being finite{where}.", _NON_FINITE_HINT)


def _of_runtime(error: BaseException) -> Failure | None:
    return OUT_OF_MEMORY if _mentions(error, _OUT_OF_MEMORY_WORDS) else None


def _of_system(error: BaseException) -> Failure | None:
    number = getattr(error, "errno", None)
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return DISK_FULL
    return OUT_OF_MEMORY if number == errno.ENOMEM else None


def _of_database(error: BaseException) -> Failure | None:
    return DISK_FULL if _mentions(error, _DISK_FULL_WORDS) else DATABASE_UNAVAILABLE


def _mentions(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)


_PATH_CODES = frozenset({"file_not_found", "path_not_allowed", "not_a_file", "not_a_folder"})

_TABLE: Mapping[str, Callable[[BaseException], Failure | None]] = {
    "builtins.MemoryError": lambda _error: OUT_OF_MEMORY,
    "torch.OutOfMemoryError": lambda _error: OUT_OF_MEMORY,
    "builtins.RuntimeError": _of_runtime,
    "builtins.OSError": _of_system,
    "safetensors_rust.SafetensorError": lambda error: DISK_FULL if _mentions(error, _DISK_FULL_WORDS) else None,
    "sqlalchemy.exc.OperationalError": _of_database,
    "sqlalchemy.exc.InterfaceError": _of_database,
    "sqlalchemy.exc.TimeoutError": _of_database,
    "worker.rank_group.RankError": _of_rank,
    "sama_core.errors.ExchangeError": lambda _error: RANK_LOST,
    "service.storage.faults.DataError": _of_data,
    "service.errors.ServiceError": _of_service,
    "sama_core.errors.NonFiniteError": _of_non_finite,
    "sama_core.errors.MissingPackageError": _of_package,
    "sama_core.errors.SamaCoreError": _of_core,
}
