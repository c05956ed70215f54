"""The section's plots, from its figures."""

from collections.abc import Mapping

from benchmarks.quality.methods import OURS
from benchmarks.quality.plots import Series, draw_dots, draw_lines
from benchmarks.quality.pruning import AUTO, REMOVED, list_rules
from benchmarks.quality.sets import SETS
from benchmarks.quality.summary import Summary

_ARMS = {"weights": "ours, weights", "suggested": "ours, suggested labels", "relabelled": "ours, relabelled"}
_BASE = "given+meta"
_LEAST_IN_BIN = 20


def draw_charts(summary: Summary) -> dict[str, str]:
    """Return the plots there are figures for, by name."""
    charts = {
        "detection": _draw_detection(summary),
        "training": _draw_training(summary),
        "pruning": _draw_pruning(summary),
        "calibration": _draw_calibration(summary),
    }
    return {name: chart for name, chart in charts.items() if chart}


def _draw_detection(summary: Summary) -> str:
    rows: dict[str, dict[str, float]] = {}
    for set_name in _in_order(summary.list_sets()):
        found = {
            name: summary.mean("curation", set_name, name, "detection", "auroc")
            for name in summary.list_methods()
            if name == OURS or not name.startswith(OURS)
        }
        rows[set_name] = _known(found)
    return draw_dots("Finding wrong labels: AUROC", rows, [OURS]) if any(rows.values()) else ""


def _draw_training(summary: Summary) -> str:
    rows: dict[str, dict[str, float]] = {}
    for set_name in _in_order(summary.list_sets("controls")):
        found = {
            control: summary.mean("controls", set_name, "", "accuracy", control)
            for control in ("given", "meta", "given+meta", "gold")
        }
        for name in summary.list_methods():
            if not name.startswith(OURS):
                arms = [summary.mean("curation", set_name, name, "accuracy", arm) for arm in ("kept", "suggested")]
                found[name] = max((value for value in arms if value is not None), default=None)
        for arm, title in _ARMS.items():
            found[title] = summary.mean("curation", set_name, OURS, "accuracy", arm)
        base = found.pop(_BASE)
        rows[set_name] = {} if base is None else {name: value - base for name, value in _known(found).items()}
    title = f"Test accuracy less that of {_BASE} (baselines: the better of kept and suggested)"
    return draw_dots(title, rows, list(_ARMS.values())) if any(rows.values()) else ""


def _draw_pruning(summary: Summary) -> str:
    series = []
    for set_name in summary.list_sets("pruning"):
        for method in summary.list_methods("pruning"):
            drawn = {rule: method if rule == "top" else f"{method}, {rule}" for rule in list_rules(method)}
            rules = {AUTO: "ours, auto"} if method == OURS else drawn
            for rule, title in rules.items():
                found = {
                    removed: summary.mean("pruning", set_name, method, "pruning", rule, str(removed))
                    for removed in REMOVED
                }
                points = [(removed, value) for removed, value in found.items() if value is not None]
                if points:
                    series.append(Series(title, points, is_ours=method == OURS))
    return draw_lines("Test accuracy after pruning, equal steps", series, "share removed") if series else ""


def _draw_calibration(summary: Summary) -> str:
    series = []
    for set_name in _in_order(summary.list_sets()):
        points = collect_reliability(summary, set_name, OURS)
        if points:
            series.append(Series(set_name, points))
    title = "Calibration of our noise score: share of wrong labels by score"
    return draw_lines(title, series, "mean noise score", diagonal=True) if series else ""


def collect_reliability(summary: Summary, set_name: str, method: str) -> list[tuple[float, float]]:
    """Return mean noise score and share of wrong labels of each tenth that holds enough rows, all seeds together."""
    records = summary.find("curation", set_name, method)
    bins = [record["detection"]["bins"] for record in records if record.get("detection")]
    points = []
    for tenth in zip(*bins, strict=True):
        count = sum(part[0] for part in tenth)
        if count >= _LEAST_IN_BIN:
            score, wrong = (sum(part[0] * part[index] for part in tenth) / count for index in (1, 2))
            points.append((score, wrong))
    return points


def _known(found: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in found.items() if value is not None}


def _in_order(names: list[str]) -> list[str]:
    return sorted(names, key=list(SETS).index)
