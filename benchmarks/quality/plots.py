"""Plots as SVG: text, drawn without a library."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 250, 190, 46, 34
_ROW = 26
_AXIS, _TEXT = "#9ca3af", "#111827"
_OURS = ("#c2410c", "#f97316", "#7c2d12")
_PALETTE = (
    "#1d4ed8", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#4b5563", "#65a30d", "#0ea5e9",
    "#000000", "#14b8a6", "#a78bfa", "#f472b6", "#facc15", "#86efac", "#94a3b8", "#92400e", "#3730a3",
)  # fmt: skip
_MOST_TICKS = 8


@dataclass(frozen=True)
class Series:
    """Points under one name; ``is_ours`` draws them large, in the colour that is ours alone."""

    name: str
    points: Sequence[tuple[float, float]]
    is_ours: bool = False


def draw_dots(title: str, rows: Mapping[str, Mapping[str, float]], ours: Sequence[str]) -> str:
    """Return a chart of one row a set and one dot a method.

    Args:
        title: above it.
        rows: by set the value of each method.
        ours: names that are ours.
    """
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    colours = _give_colours(names, ours)
    scale = _Scale.over([value for values in rows.values() for value in values.values()], _LEFT, _WIDTH - _RIGHT)
    height = _TOP + _ROW * max(len(rows), len(names)) + _BOTTOM
    base = _TOP + _ROW * len(rows)
    parts = [_open(title, height), *_draw_ticks(scale, base)]
    for index, (row, values) in enumerate(rows.items()):
        y = _TOP + _ROW * (index + 0.5)
        parts.append(_text(_LEFT - 10, y + 4, row, "end"))
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "#e5e7eb"))
        for name in sorted(values, key=lambda name: name in ours):
            parts.append(
                _dot(scale.place(values[name]), y, colours[name], f"{row}, {name}: {values[name]:.3f}", name in ours)
            )
    return "\n".join([*parts, *_draw_legend(colours, ours), "</svg>\n"])


def draw_lines(title: str, series: Sequence[Series], x_title: str, *, diagonal: bool = False) -> str:
    """Return a chart of lines over a common axis; ``diagonal`` draws where x equals y."""
    height = 420
    colours = _give_colours([one.name for one in series], [one.name for one in series if one.is_ours])
    points = [point for one in series for point in one.points]
    across = _Scale.over([x for x, _ in points], 70, _WIDTH - _RIGHT)
    upward = _Scale.over([y for _, y in points], height - 60, _TOP)
    parts = [_open(title, height), *_draw_ticks(across, height - 60)]
    for value in upward.list_ticks():
        y = upward.place(value)
        parts += [_line(70, y, _WIDTH - _RIGHT, y, "#e5e7eb"), _text(62, y + 4, f"{value:.2f}", "end")]
    parts.append(_text((70 + _WIDTH - _RIGHT) / 2, height - 14, x_title, "middle"))
    if diagonal:
        low, high = max(across.low, upward.low), min(across.high, upward.high)
        ends = (across.place(low), upward.place(low), across.place(high), upward.place(high))
        parts.append(_line(*ends, _AXIS, dashes="4 4"))
    for one in series:
        path = " ".join(f"{across.place(x):.1f},{upward.place(y):.1f}" for x, y in one.points)
        width = 3 if one.is_ours else 1.5
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[one.name]}" stroke-width="{width}"/>')
        for x, y in one.points:
            words = f"{one.name}: {x:.2f}, {y:.3f}"
            parts.append(_dot(across.place(x), upward.place(y), colours[one.name], words, one.is_ours))
    ours = [one.name for one in series if one.is_ours]
    return "\n".join([*parts, *_draw_legend(colours, ours), "</svg>\n"])


@dataclass(frozen=True)
class _Scale:
    """Values from low to high on a stretch of the page."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Scale":
        low, high = min(values, default=0.0), max(values, default=1.0)
        margin = max((high - low) * 0.05, 0.005)
        return cls(low - margin, high + margin, start, end)

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def list_ticks(self) -> list[float]:
        """Return round numbers within the scale: multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / _MOST_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [number * step for number in range(first, last + 1)]


def _give_colours(names: Sequence[str], ours: Sequence[str]) -> dict[str, str]:
    others = [name for name in names if name not in ours]
    colours = {name: _PALETTE[index % len(_PALETTE)] for index, name in enumerate(others)}
    colours |= {name: _OURS[index % len(_OURS)] for index, name in enumerate(ours)}
    return {name: colours[name] for name in names}


def _open(title: str, height: float) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img"'
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    back = f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#ffffff"/>'
    return f'{head} {font} aria-label="{escape(title)}">\n{back}\n{_text(16, 24, title, "start", size=15)}'


def _draw_ticks(scale: _Scale, y: float) -> list[str]:
    parts = [_line(scale.start, y, scale.end, y, _AXIS)]
    for value in scale.list_ticks():
        parts.append(_text(scale.place(value), y + 18, f"{value:.2f}", "middle"))
    return parts


def _draw_legend(colours: Mapping[str, str], ours: Sequence[str]) -> list[str]:
    parts = []
    for index, (name, colour) in enumerate(colours.items()):
        y = _TOP + 12 + index * 20
        parts.append(_dot(_WIDTH - _RIGHT + 24, y, colour, name, name in ours))
        parts.append(_text(_WIDTH - _RIGHT + 36, y + 4, name, "start"))
    return parts


def _dot(x: float, y: float, colour: str, words: str, is_large: bool) -> str:
    radius = 6 if is_large else 4
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="0.85">'
        f"<title>{escape(words)}</title></circle>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'


def _text(x: float, y: float, words: str, anchor: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{_TEXT}">{escape(words)}</text>'
    )
