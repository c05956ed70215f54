"""The arms by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.betty import KINDS, build_betty, find_betty
from benchmarks.engine.plain import build_plain
from benchmarks.engine.setting import PERIOD, ArmUnavailableError, Setting, Step

ROUTES = ("ghost", "finite-difference", "forward-mode")


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        title: for the report.
        build: returns the function that does one base step.
        is_main: measured on every problem with every optimizer at the full number of repeats.
        unrolls: numbers of base steps per meta step that it is measured at.
    """

    title: str
    build: Callable[[Setting], Step]
    is_main: bool = False
    unrolls: tuple[int, ...] = (1, PERIOD)


def _ours(route: str = "auto", **changes: Any) -> Callable[[Setting], Step]:
    def build(setting: Setting) -> Step:
        from benchmarks.engine.ours import build_ours

        return build_ours(setting, route, **changes)

    return build


def _betty(kind: str) -> Callable[[Setting], Step]:
    return lambda setting: build_betty(setting, kind)


ARMS: Mapping[str, Arm] = {
    "plain": Arm("plain training", build_plain, is_main=True),
    "auto": Arm("ours, automatic route", _ours(), is_main=True),
    "evidence": Arm("ours, automatic route, default evidence", _ours(features=None)),
    "every-step": Arm("ours, every unrolled batch", _ours(every_step=True), unrolls=(PERIOD,)),
    **{route: Arm(f"ours, {route}", _ours(route)) for route in ROUTES},
    **{f"betty-{kind}": Arm(f"Betty {kind}", _betty(kind), is_main=kind == "sama") for kind in KINDS},
}


def find_arms(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the arms of ``names`` that can run here, and a line for each reason why others cannot."""
    try:
        find_betty()
    except ArmUnavailableError as exc:
        kept = [name for name in names if not name.startswith("betty-")]
        return kept, [f"Betty's arms are left out: {exc}."] if len(kept) < len(names) else []
    return list(names), []
