"""The states and phases of a job, and which may follow which."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    VALIDATING = "validating"
    RUNNING = "running"
    EVALUATING = "evaluating"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """What an attempt is doing."""

    VALIDATING = "validating"
    READING = "reading"
    TRAINING = "training"
    SCORING = "scoring"
    EVALUATING = "evaluating"
    STORING = "storing"


# A worker holds the job in these states; only then may an attempt write.
HELD_STATES = (JobState.VALIDATING, JobState.RUNNING, JobState.EVALUATING, JobState.CANCELLING)
FINAL_STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
RESUMABLE_STATES = (JobState.FAILED, JobState.CANCELLED)
CANCELLABLE_STATES = (JobState.QUEUED, JobState.VALIDATING, JobState.RUNNING, JobState.EVALUATING)

# Entering a phase moves the job to this state; storing leaves it where it is.
STATE_OF_PHASE = {
    Phase.VALIDATING: JobState.VALIDATING,
    Phase.READING: JobState.RUNNING,
    Phase.TRAINING: JobState.RUNNING,
    Phase.SCORING: JobState.RUNNING,
    Phase.EVALUATING: JobState.EVALUATING,
}
