"""What a finished job found, in a few lines for a terminal."""

from collections.abc import Container, Iterable, Sequence

from service.cli.tables import write_table
from service.jobs.schemas import Job
from service.results.schemas import EvaluationSummary, Summary
from service.wording import write_count, write_moment, write_points, write_seconds, write_share


def write_interval(interval: tuple[float, float]) -> str:
    """Return an interval of shares as per cent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}%"


def write_summary(job: Job, summary: Summary, *, said: Container[str] = ()) -> list[str]:
    """Return what the job found: rows, kept, doubtful, the proof and its verdict, and the notes not `said` before."""
    selection = summary.selection
    dropped = summary.num_labelled - selection.n_kept
    rows = [
        ["rows", f"{summary.num_rows:,}", ""],
        ["keep", f"{selection.n_kept:,}", write_share(selection.kept_fraction_of_total)],
        ["drop", f"{dropped:,}", write_share(dropped / summary.num_rows)],
        ["doubtful labels", f"{summary.num_doubtful:,}", write_share(summary.num_doubtful / summary.num_rows)],
    ]
    if summary.num_unlabelled:
        rows.append(
            ["unlabelled", f"{summary.num_unlabelled:,}", write_share(summary.num_unlabelled / summary.num_rows)]
        )
    lines = [f"{job.name or job.id}: {job.task} by {job.document['method']['name']}, rule {selection.rule}", ""]
    lines += write_table(rows)
    lines += ["", *_write_evaluation(summary.evaluation)]
    notes = [f"  note: {note}" for note in summary.notes if note not in said]
    return [*lines, "", *notes] if notes else lines


def write_job(job: Job) -> list[str]:
    """Return one job as aligned lines: state, progress, times, error."""
    times = job.times
    rows = [
        ("id", job.id),
        ("name", job.name or "-"),
        ("state", str(job.state)),
        ("progress", write_share(job.progress, 0)),
    ]
    if job.queue_position is not None:
        rows.append(("queue position", str(job.queue_position)))
    if job.phase is not None:
        rows.append(("phase", str(job.phase)))
    rows.append(("attempt", f"{job.attempt} (at most {job.max_attempts} lost)"))
    rows.append(("created", write_moment(times.created_at)))
    if times.finished_at is not None:
        rows.append(("finished", write_moment(times.finished_at)))
        if times.validating_at is not None:
            rows.append(("took", write_seconds((times.finished_at - times.validating_at).total_seconds())))
    elif job.eta_seconds is not None:
        rows.append(("time left", write_seconds(job.eta_seconds)))
    rows += [(f"label {key}", value) for key, value in job.labels.items()]
    if job.error is not None:
        rows.append(("error", f"{job.error.code}: {job.error.message}"))
        if job.error.hint:
            rows.append(("hint", job.error.hint))
    return _align(rows)


def write_jobs(jobs: Sequence[Job]) -> list[str]:
    """Return jobs as a table, newest first."""
    rows = [["ID", "STATE", "PROGRESS", "CREATED", "NAME"]]
    for job in jobs:
        state = f"queued ({job.queue_position})" if job.queue_position is not None else str(job.state)
        rows.append([job.id, state, write_share(job.progress, 0), write_moment(job.times.created_at), job.name or "-"])
    return write_table(rows, indent="")


def _align(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}" for name, value in pairs]


def _write_evaluation(evaluation: EvaluationSummary | str) -> list[str]:
    if isinstance(evaluation, str):
        return ["  accuracy: not evaluated (the document has no `evaluation`)"]
    rows = [["trained on", "rows", "test accuracy", "95% interval"]]
    rows += [
        [arm.arm, f"{arm.num_rows:,}", write_share(arm.mean), write_interval(arm.interval)] for arm in evaluation.arms
    ]
    lines = write_table(rows)
    for comparison in evaluation.comparisons:
        low, high = (write_points(end) for end in comparison.interval)
        lines.append(f"  curated against {comparison.arm}: {write_points(comparison.difference)} ({low} to {high})")
    seeds = write_count(len(evaluation.seeds), "seed")
    lines.append(f"  {write_count(evaluation.num_test, 'test example')}, {seeds}")
    return [*lines, "", f"  verdict: {evaluation.verdict}"]
