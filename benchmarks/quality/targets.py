"""The targets, held against the figures of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.quality.methods import OURS
from benchmarks.quality.pruning import AUTO, REMOVED, list_rules
from benchmarks.quality.sets import SETS
from benchmarks.quality.summary import MISSING, Summary

_TOLERANCE = 0.005
_LEAST_AUROC = 0.6
_SHARE_OF_SETS = 0.75
_MOST_TIME = 1.5
_BASELINE_ARMS = ("kept", "suggested")
_CONTROLS = ("meta", "given+meta")


@dataclass(frozen=True)
class Verdict:
    """A target and whether it was met; None where it could not be told."""

    target: str
    where: str
    figures: str
    is_met: bool | None

    @property
    def word(self) -> str:
        """PASS, MISSED or not measured."""
        return "not measured" if self.is_met is None else "PASS" if self.is_met else "MISSED"


@dataclass(frozen=True)
class _Best:
    name: str
    value: float


def judge_targets(summary: Summary) -> list[Verdict]:
    """Return every target's verdict, target by target."""
    return [
        *_judge_detection(summary, "auroc", "AUROC"),
        *_judge_detection(summary, "average_precision", "average precision"),
        *_judge_floor(summary),
        *_judge_training(summary, "weights", "accuracy after reweight"),
        *_judge_training(summary, "relabelled", "accuracy after relabel"),
        *_judge_training(summary, "soft", "accuracy after relabel with soft labels", (*_BASELINE_ARMS, "soft")),
        *_judge_pruning(summary),
        *_judge_cost(summary, "curation", f"time at most {_MOST_TIME} plain trainings, a meta step after each tenth"),
        *_judge_cost(summary, "cost", f"time at most {_MOST_TIME}, where the product chooses the number of epochs"),
    ]


def _list_baselines(summary: Summary, kind: str = "curation") -> list[str]:
    return [name for name in summary.list_methods(kind) if name and not name.startswith(OURS)]


def _find_best(figures: Mapping[str, float | None]) -> _Best | None:
    found = [_Best(name, value) for name, value in figures.items() if value is not None]
    return max(found, key=lambda best: best.value, default=None)


def _compare(target: str, where: str, ours: float | None, best: _Best | None, tolerance: float = 0.0) -> Verdict:
    if ours is None or best is None:
        return Verdict(target, where, MISSING, None)
    gap = ours - best.value
    return Verdict(target, where, f"{ours:.3f} against {best.value:.3f} ({best.name}): {gap:+.3f}", gap >= -tolerance)


def _judge_detection(summary: Summary, figure: str, title: str) -> list[Verdict]:
    verdicts = []
    for set_name in _in_order(summary.list_sets()):
        rivals = {
            name: summary.mean("curation", set_name, name, "detection", figure) for name in _list_baselines(summary)
        }
        ours = summary.mean("curation", set_name, OURS, "detection", figure)
        verdicts.append(
            _compare(
                f"{title} within {_TOLERANCE} of the best baseline", set_name, ours, _find_best(rivals), _TOLERANCE
            )
        )
    return verdicts


def _judge_floor(summary: Summary) -> list[Verdict]:
    found = {name: summary.mean("curation", name, OURS, "detection", "auroc") for name in summary.list_sets()}
    lowest = _find_best({name: None if value is None else -value for name, value in found.items()})
    target = f"AUROC at least {_LEAST_AUROC} on every set"
    if lowest is None:
        return [Verdict(target, "all", MISSING, None)]
    return [Verdict(target, "all", f"lowest {-lowest.value:.3f} ({lowest.name})", -lowest.value >= _LEAST_AUROC)]


def _judge_training(
    summary: Summary, arm: str, title: str, rival_arms: Sequence[str] = _BASELINE_ARMS
) -> list[Verdict]:
    verdicts, won, losses, judged = [], 0, [], 0
    for set_name in _in_order(summary.list_sets("controls")):
        ours = summary.mean("curation", set_name, OURS, "accuracy", arm)
        rivals = {
            f"{name}, {kind}": summary.mean("curation", set_name, name, "accuracy", kind)
            for name in _list_baselines(summary)
            for kind in rival_arms
        } | {name: summary.mean("controls", set_name, "", "accuracy", name) for name in _CONTROLS}
        given = summary.mean("controls", set_name, "", "accuracy", "given")
        verdict = _compare(f"{title} above every baseline and both controls", set_name, ours, _find_best(rivals))
        verdicts.append(verdict)
        if verdict.is_met is None or ours is None or given is None:
            continue
        judged += 1
        won += verdict.is_met
        if ours < given:
            losses.append(f"{set_name} {ours - given:+.3f}")
    if judged:
        target = f"{title} above all of them on {_SHARE_OF_SETS:.0%} of the sets"
        verdicts.append(Verdict(target, "all", f"{won} of {judged}", won >= _SHARE_OF_SETS * judged))
        below = f"below on {', '.join(losses)}" if losses else f"on none of {judged} below"
        verdicts.append(Verdict(f"{title} never below given labels", "all", below, not losses))
    return verdicts


def _judge_pruning(summary: Summary) -> list[Verdict]:
    verdicts = []
    for set_name in summary.list_sets("pruning"):
        for removed in map(str, REMOVED):
            rivals = {
                f"{name}, {rule}": summary.mean("pruning", set_name, name, "pruning", rule, removed)
                for name in _list_baselines(summary, "pruning")
                for rule in list_rules(name)
            }
            ours = summary.mean("pruning", set_name, OURS, "pruning", AUTO, removed)
            where = f"{set_name}, {float(removed):.0%} removed"
            verdicts.append(
                _compare("accuracy after prune at or above the best baseline", where, ours, _find_best(rivals))
            )
    return verdicts


def _judge_cost(summary: Summary, kind: str, target: str) -> list[Verdict]:
    verdicts = []
    for set_name in _in_order(summary.list_sets(kind)):
        ratio = summary.mean(kind, set_name, OURS, "cost", "time_ratio")
        memory = summary.mean(kind, set_name, OURS, "cost", "memory_ratio")
        if ratio is None:
            verdicts.append(Verdict(target, set_name, MISSING, None))
            continue
        shown = f"{ratio:.2f} times" + (f", memory {memory:.2f} times" if memory else "")
        verdicts.append(Verdict(target, set_name, shown, ratio <= _MOST_TIME))
    return verdicts


def _in_order(names: Sequence[str]) -> list[str]:
    return sorted(names, key=list(SETS).index)
