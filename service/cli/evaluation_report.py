"""The proof of a finished job, in lines for a terminal."""

from service.cli.tables import write_table
from service.results.schemas import AuditSummary, BaselineSummary, CurvePoint, EvaluationSummary
from service.wording import write_count, write_decimal, write_points, write_share


def write_interval(interval: tuple[float, float]) -> str:
    """Return an interval of shares as per cent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}%"


def write_evaluation(evaluation: EvaluationSummary | str) -> list[str]:
    """Return the arms and their differences, the prune curve, baselines, audit, and the verdict last."""
    if isinstance(evaluation, str):
        return ["  accuracy: not evaluated (the job was asked for no evaluation)"]
    lines = _write_arms(evaluation) if evaluation.arms else []
    if evaluation.curve:
        lines += ["", *_write_curve(evaluation.curve)]
    if evaluation.baselines:
        lines += ["", *_write_baselines(evaluation.baselines)]
    if evaluation.audit is not None:
        lines += ["", *_write_audit(evaluation.audit)]
    return [*lines, "", f"  verdict: {evaluation.verdict}"]


def _write_arms(evaluation: EvaluationSummary) -> list[str]:
    rows = [["trained on", "rows", "test accuracy", "95% interval"]]
    rows += [
        [arm.arm, f"{arm.num_rows:,}", write_share(arm.mean), write_interval(arm.interval)] for arm in evaluation.arms
    ]
    lines = write_table(rows)
    for comparison in evaluation.comparisons:
        low, high = (write_points(end) for end in comparison.interval)
        difference = write_points(comparison.difference)
        lines.append(f"  {comparison.subject} against {comparison.arm}: {difference} ({low} to {high})")
    seeds = write_count(len(evaluation.seeds), "seed")
    return [*lines, f"  {write_count(evaluation.num_test, 'test example')}, {seeds}"]


def _write_curve(curve: list[CurvePoint]) -> list[str]:
    rows = [["kept", "rows", "curated", "random", "difference", "95% interval"]]
    for point in curve:
        low, high = (write_points(end) for end in point.comparison.interval)
        accuracies = [write_share(arm.mean) for arm in (point.curated, point.random)]
        difference = write_points(point.comparison.difference)
        rows.append(
            [write_share(point.keep_fraction, 0), f"{point.num_rows:,}", *accuracies, difference, f"{low} to {high}"]
        )
    return write_table(rows)


def _write_baselines(baselines: list[BaselineSummary]) -> list[str]:
    lines = []
    for found in baselines:
        doubted = write_count(found.num_compared, "row")
        correlation = write_decimal(found.rank_correlation)
        lines.append(
            f"  beside {found.name}: {write_share(found.overlap)} of the {doubted} doubted most are the same, "
            f"rank correlation {correlation}"
        )
    return lines


def _write_audit(audit: AuditSummary) -> list[str]:
    rows = [["planted errors", "AUROC", "average precision", f"precision at {audit.num_planted:,}"]]
    for found in audit.detections:
        ranking = [write_decimal(value, 3) for value in (found.auroc, found.average_precision)]
        rows.append([found.name, *ranking, write_share(found.precision)])
    counted = f"{audit.num_planted:,} of {write_count(audit.num_judged, 'label')} planted ({audit.kind})"
    return [*write_table(rows), f"  {counted}. {audit.reading}"]
