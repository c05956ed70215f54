"""Errors that carry a stable code. Only the edge (`exception_handlers`, the CLI) turns a code into a status."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a document or of the data it names.

    `param` is the path of the field (`dataset.label`), `seen` what stands there, `wanted` what would be
    accepted, `nearest` the closest valid name where there is one, `message` the whole sentence.
    """

    param: str
    seen: str
    wanted: str
    message: str
    nearest: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """Return the fields as a JSON object."""
        return asdict(self)


class ServiceError(Exception):
    """A refusal or failure that a caller can act on.

    `code` is stable and machine-readable; `message` is one sentence for a person, free of SQL, server paths
    and tracebacks; `param` is the field at fault; `hint` says what to do; `problems` lists every fault found.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.hint = hint
        self.problems = tuple(problems)


class NotFoundError(ServiceError):
    """What was asked for does not exist."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__("not_found", f"There is no {what} {name!r}.", param=what)


class StaleAttemptError(ServiceError):
    """A write by an attempt that no longer holds its job: the lease passed on, or the job was ended."""

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__("stale_attempt", f"Attempt {attempt} no longer holds job {job_id}; its write is refused.")
        self.job_id = job_id
        self.attempt = attempt


class ForbiddenTransitionError(ServiceError):
    """The job's state does not allow what was asked."""

    def __init__(self, job_id: str, state: str, action: str, allowed: Sequence[str]) -> None:
        super().__init__(
            "forbidden_transition",
            f"Job {job_id} is {state}; {action} needs a job that is {' or '.join(allowed)}.",
            param="state",
        )
