"""What a claim, a lease and an ended attempt are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """A job taken by a worker. `attempt` is the fencing token of every write that follows."""

    job_id: str
    attempt: int
    document: str
    max_seconds: float
    used_seconds: float
    checkpoint_path: str | None
    checkpoint_step: int | None


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """What a worker learns when it renews its lease; `phase` is None before the attempt has said a word."""

    cancel_requested: bool
    used_seconds: float
    phase: str | None


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """An attempt whose worker fell silent for longer than its lease."""

    job_id: str
    attempt: int
    worker_id: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended badly. A retryable failure sends the job back to the queue while attempts are left."""

    code: str
    message: str
    hint: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is: `progress` 0..1 over the whole job, `rate` in `rate_unit`, time left in seconds."""

    progress: float
    rate: float | None = None
    rate_unit: str | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One point of the training curves."""

    step: int
    base_loss: float | None = None
    meta_loss: float | None = None
    hypergradient_norm: float | None = None
    effective_sample_size: float | None = None
    examples_per_second: float | None = None
