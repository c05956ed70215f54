"""Training curves as inline SVG, drawn on the server: no script, and the latest value also stands as text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from service.jobs.schemas import MetricPoint
from service.wording import write_count, write_number

_WIDTH, _HEIGHT = 420.0, 170.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 10.0, 10.0, 30.0
_MOST_POINTS = 240
_LOG_SCALE_FROM = 50.0
_TICK_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over the steps: its name, what it says, and its points (step, value)."""

    name: str
    meaning: str
    points: tuple[tuple[int, float], ...]

    @property
    def latest(self) -> str:
        """The last value, for people."""
        return write_number(self.points[-1][1])


_CURVES = (
    ("base_loss", "Base loss", "weighted loss of the training batches"),
    ("meta_loss", "Meta loss", "loss on the trusted examples"),
    ("hypergradient_norm", "Hypergradient norm", "how strongly the weights are still being moved"),
    ("effective_sample_size", "Effective sample size", "how many examples of a batch its weights let count"),
)


def list_curves(metrics: Sequence[MetricPoint]) -> list[Curve]:
    """Return the curves that have at least two points."""
    curves = []
    for field, name, meaning in _CURVES:
        values = [(point.step, getattr(point, field)) for point in metrics]
        points = tuple((step, value) for step, value in values if value is not None and math.isfinite(value))
        if len(points) > 1:
            curves.append(Curve(name, meaning, points))
    return curves


def draw_curve(curve: Curve) -> Markup:
    """Return the chart of one curve; on a logarithmic scale, which it says, where the values span far."""
    steps, values = zip(*_thin(curve.points), strict=True)
    low, high = min(values), max(values)
    is_log = low > 0 and high / low > _LOG_SCALE_FROM
    scale = _Scale(low, high, is_log=is_log)
    first, last = curve.points[0][0], curve.points[-1][0]
    line = " ".join(
        f"{_place_step(step, first, last):.1f},{scale.place(value):.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    words = (
        f"{curve.name} over steps {write_count(first)} to {write_count(last)}: from "
        f"{write_number(curve.points[0][1])} to {curve.latest}"
    )
    base = _HEIGHT - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'aria-label="{escape(words)}">'
    ]
    for tick in scale.ticks():
        y = scale.place(tick)
        parts.append(f'<line class="grid" x1="{_LEFT:g}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT:g}" y2="{y:.1f}"/>')
        parts.append(_write_text(_LEFT - 7, y + 4, write_number(tick, _TICK_DIGITS), "end"))
    parts.append(f'<polyline class="line" points="{line}"/>')
    x, y = _place_step(last, first, last), scale.place(values[-1])
    parts.append(f'<circle class="mean" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
    parts.append(_write_text(_LEFT, base + 18, f"step {write_count(first)}", "start"))
    parts.append(_write_text(_WIDTH - _RIGHT, base + 18, write_count(last), "end"))
    if is_log:
        parts.append(_write_text((_LEFT + _WIDTH) / 2, base + 18, "logarithmic scale", "middle"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - every text in it is escaped above


class _Scale:
    """Values to heights in the drawing."""

    def __init__(self, low: float, high: float, *, is_log: bool) -> None:
        self._is_log = is_log
        self._low, self._high = self._bend(low), self._bend(high)
        if self._high - self._low < 1e-12 * max(1.0, abs(self._high)):
            margin = 0.5 * abs(self._high) or 0.5
            self._low, self._high = self._low - margin, self._high + margin

    def place(self, value: float) -> float:
        """Return the height of a value."""
        share = (self._bend(value) - self._low) / (self._high - self._low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    def ticks(self) -> list[float]:
        """Return the values at the bottom, the middle and the top."""
        places = (self._low, (self._low + self._high) / 2, self._high)
        return [10.0**place if self._is_log else place for place in places]

    def _bend(self, value: float) -> float:
        return math.log10(value) if self._is_log else value


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most so many points that a line shows them, the last one always among them."""
    stride = max(1, math.ceil(len(points) / _MOST_POINTS))
    thinned = list(points[::stride])
    return thinned if thinned[-1] == points[-1] else [*thinned, points[-1]]


def _place_step(step: int, first: int, last: int) -> float:
    return _LEFT + (step - first) / max(last - first, 1) * (_WIDTH - _LEFT - _RIGHT)


def _write_text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
