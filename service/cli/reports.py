"""What a finished job found, in a few lines for a terminal."""

from collections.abc import Container, Iterable, Iterator, Sequence

from service.cli.evaluation_report import write_evaluation
from service.cli.tables import write_table
from service.jobs.schemas import Job
from service.results.schemas import RelabelSummary, Summary
from service.wording import write_count, write_moment, write_seconds, write_share

_MOST_CHANGES = 5


def write_summary(job: Job, summary: Summary, *, said: Container[str] = ()) -> list[str]:
    """Return what the job found: rows, kept, doubtful, the proof and its verdict, and the notes not `said` before."""
    selection = summary.selection
    dropped = selection.n_labelled - selection.n_kept
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
    if summary.relabel is not None:
        rows += _list_label_counts(summary.relabel, summary.num_rows)
    lines = [f"{job.name or job.id}: {job.task} by {job.document['method']['name']}, rule {selection.rule}", ""]
    lines += write_table(rows)
    if summary.relabel is not None:
        lines += ["", *_write_changes(summary.relabel)]
    lines += ["", *write_evaluation(summary.evaluation)]
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


def _list_label_counts(relabel: RelabelSummary, num_rows: int) -> Iterator[list[str]]:
    yield ["labels corrected", f"{relabel.num_corrected:,}", write_share(relabel.num_corrected / num_rows)]
    if relabel.num_labelled:
        yield ["labelled newly", f"{relabel.num_labelled:,}", write_share(relabel.num_labelled / num_rows)]


def _write_changes(relabel: RelabelSummary) -> list[str]:
    """Return the most frequent corrections, and how many labels are right where probabilities are known."""
    rows = [["given label", "corrected to", "rows", "mean confidence"]]
    rows += [
        [
            "(none)" if change.given is None else change.given,
            change.label,
            f"{change.count:,}",
            f"{change.mean_confidence:.2f}",
        ]
        for change in relabel.changes[:_MOST_CHANGES]
    ]
    num_more = relabel.num_changes - len(rows) + 1
    more = [f"  and {write_count(num_more, 'more pair')} of labels"] if num_more else []
    right = []
    if relabel.expected_right_before is not None:
        before, after = write_share(relabel.expected_right_before), write_share(relabel.expected_right_after)
        right = [f"  labels right by the model's own probabilities: {before} as given, {after} as corrected"]
    return [
        *(write_table(rows) if relabel.changes else ["  no label was doubtful enough to be corrected"]),
        *more,
        *right,
    ]


def _align(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}" for name, value in pairs]
