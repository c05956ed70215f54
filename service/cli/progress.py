"""How far a job is, for people: a live bar on a terminal, a line now and then elsewhere."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from service.cli.console import clean_line, console, is_terminal
from service.jobs.schemas import Job, JobEvent
from service.jobs.state import FINAL_STATES, JobState
from service.wording import write_rate, write_seconds, write_share

_SECONDS_BETWEEN_LINES = 10.0
_QUIET_KINDS = {"state", "phase"}


class AbstractProgressView(ABC):
    """Shows one job; use as a context manager."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    @abstractmethod
    def show_job(self, job: Job) -> None:
        """Show where the job stands now."""

    @abstractmethod
    def show_event(self, event: JobEvent) -> None:
        """Show something that happened."""

    @abstractmethod
    def show_bytes(self, file_name: str, arrived: int, total: int | None) -> None:
        """Show how much of a file has arrived."""

    def follow(self, updates: Iterable[Job | JobEvent]) -> Job:
        """Show everything that comes and return the job in its last state."""
        job: Job | None = None
        for update in updates:
            if isinstance(update, Job):
                job = update
                self.show_job(update)
            else:
                self.show_event(update)
        assert job is not None, "a watch ends with the job"
        return job


class LineProgressView(AbstractProgressView):
    """Plain lines: each phase as it begins, then one every ten seconds."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._last_stage = ""
        self._last_line_at = 0.0

    def __exit__(self, *_error: object) -> None:
        """Nothing to tidy up."""

    def show_job(self, job: Job) -> None:
        """Write a line if the stage is new or the last line is old."""
        now, stage = time.monotonic(), name_stage(job)
        if stage != self._last_stage or now - self._last_line_at >= _SECONDS_BETWEEN_LINES:
            self._last_stage, self._last_line_at = stage, now
            console.note(f"[{now - self._started_at:6.1f} s] {' · '.join(describe_job(job))}")

    def show_event(self, event: JobEvent) -> None:
        """Write what is more than a change of state or phase."""
        if event.kind not in _QUIET_KINDS:
            console.note(f"[{time.monotonic() - self._started_at:6.1f} s] {event.kind}: {event.message}")

    def show_bytes(self, file_name: str, arrived: int, total: int | None) -> None:
        """Files are not worth a line."""


class BarProgressView(AbstractProgressView):
    """One live bar with stage, share, rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<11}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("waiting", total=1.0, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show_job(self, job: Job) -> None:
        """Move the bar."""
        stage, _share, *details = describe_job(job)
        self._update(description=stage, completed=job.progress, detail=" · ".join(details))

    def show_event(self, event: JobEvent) -> None:
        """Write what is more than a change of state or phase above the bar."""
        if event.kind not in _QUIET_KINDS:
            from rich.text import Text

            self._progress.console.print(Text(clean_line(f"{event.kind}: {event.message}")))

    def show_bytes(self, file_name: str, arrived: int, total: int | None) -> None:
        """Show the file that is arriving."""
        self._update(description="download", completed=arrived, total=total, detail=file_name)

    def _update(self, **fields: Any) -> None:
        self._progress.update(self._task, **fields)


def open_progress() -> AbstractProgressView:
    """Return the view that fits where standard error goes."""
    return BarProgressView() if is_terminal() else LineProgressView()


def name_stage(job: Job) -> str:
    """Return the word for what is going on: the phase while the job is held, else its state."""
    if job.state in {*FINAL_STATES, JobState.QUEUED, JobState.CANCELLING}:
        return str(job.state)
    return str(job.phase or job.state)


def describe_job(job: Job) -> list[str]:
    """Return stage and share, then what is known of position, rate and time left."""
    parts = [name_stage(job), write_share(job.progress, 0)]
    if job.queue_position is not None:
        parts.append(f"position {job.queue_position} in the queue")
    if job.state not in FINAL_STATES and job.state != JobState.CANCELLING:
        if job.rate is not None:
            parts.append(write_rate(job.rate, job.rate_unit))
        if job.eta_seconds is not None:
            parts.append(f"{write_seconds(job.eta_seconds)} left")
    return parts
