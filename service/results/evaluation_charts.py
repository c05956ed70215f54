"""Charts of the evaluation as inline SVG: the arms, the prune curve, how far noise scores mean what they say."""

from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from service.results.charts import WIDTH, open_svg, write_text
from service.results.schemas import ArmSummary, CurvePoint, DetectionSummary
from service.wording import write_count, write_decimal, write_share

_HEIGHT = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 24, 30, 44
_MARK = 6.0

Place = Callable[[float], float]


def draw_arms(arms: Sequence[ArmSummary], title: str) -> Markup:
    """Return the mean accuracy of each arm with its interval, on one scale."""
    low = min(min(arm.interval[0], *arm.accuracy) for arm in arms)
    high = max(max(arm.interval[1], *arm.accuracy) for arm in arms)
    margin = max((high - low) * 0.1, 0.005)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)
    left, row_height = 150, 34
    height = row_height * len(arms) + 34

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - _RIGHT)

    parts = [open_svg(height, title)]
    for index, arm in enumerate(arms):
        y = 20 + index * row_height
        first, last = (place(min(max(end, low), high)) for end in arm.interval)
        words = f"{arm.arm}: {write_share(arm.mean)} ({write_share(arm.interval[0])} to {write_share(arm.interval[1])})"
        parts.append(f"<g><title>{escape(words)}</title>")
        parts.append(write_text(left - 10, y + 4, arm.arm, "end"))
        parts.append(f'<line class="interval" x1="{first:.2f}" y1="{y}" x2="{last:.2f}" y2="{y}"/>')
        parts.extend(f'<circle class="seed" cx="{place(one):.2f}" cy="{y}" r="2.5"/>' for one in arm.accuracy)
        parts.append(f'<circle class="mean" cx="{place(arm.mean):.2f}" cy="{y}" r="5"/></g>')
    base = height - 22
    parts.append(f'<line class="axis" x1="{left}" y1="{base}" x2="{WIDTH - _RIGHT}" y2="{base}"/>')
    parts.append(write_text(left, base + 16, write_share(low), "start"))
    parts.append(write_text(WIDTH - _RIGHT, base + 16, write_share(high), "end"))
    parts.append(write_text((left + WIDTH) / 2, base + 16, "test accuracy", "middle"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (every text in it is escaped above)


def draw_prune_curve(points: Sequence[CurvePoint], title: str) -> Markup:
    """Return test accuracy against the share that is kept: the best-ranked rows beside as many random ones."""
    pairs = [("curated", [point.curated for point in points]), ("random", [point.random for point in points])]
    ends = [end for _name, arms in pairs for arm in arms for end in (*arm.interval, *arm.accuracy)]
    margin = max((max(ends) - min(ends)) * 0.08, 0.005)
    low, high = max(min(ends) - margin, 0.0), min(max(ends) + margin, 1.0)
    shares = [point.keep_fraction for point in points]
    first, last = min(shares) - 0.05, max(shares) + 0.05
    across, up = _scale(first, last, _LEFT, WIDTH - _RIGHT), _scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts = [open_svg(_HEIGHT, title), _draw_axes(across, up, shares, low, high)]
    for offset, (name, arms) in zip((-3.0, 3.0), pairs, strict=True):
        places = [(across(share) + offset, arm) for share, arm in zip(shares, arms, strict=True)]
        track = " ".join(f"{x:.2f},{up(arm.mean):.2f}" for x, arm in places)
        parts.append(f'<g class="{name}"><polyline class="line" points="{track}"/>')
        parts += [_draw_arm(x, arm, point, up) for (x, arm), point in zip(places, points, strict=True)]
        parts.append("</g>")
    parts.append(_draw_legend([("curated", "curated"), ("random", "random, as many rows")]))
    parts.append(write_text((_LEFT + WIDTH) / 2, _HEIGHT - 6, "share of all rows kept", "middle"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (every text in it is escaped above)


def draw_reliability(detections: Sequence[DetectionSummary], title: str) -> Markup:
    """Return, for each bin of the noise score, the share that was planted; on the diagonal both would be equal."""
    across, up = _scale(0.0, 1.0, _LEFT, WIDTH - _RIGHT), _scale(0.0, 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = [open_svg(_HEIGHT, title), _draw_axes(across, up, [0.0, 0.5, 1.0], 0.0, 1.0)]
    parts.append(f'<line class="axis" x1="{across(0):.2f}" y1="{up(0):.2f}" x2="{across(1):.2f}" y2="{up(1):.2f}"/>')
    named = list(zip(("curated", "random", "other"), detections, strict=False))
    for style, detection in named:
        filled = [found for found in detection.reliability if found.count]
        marks = [(found.mean_noise_score or 0.0, found.share_planted or 0.0, found) for found in filled]
        track = " ".join(f"{across(mean):.2f},{up(share):.2f}" for mean, share, _found in marks)
        parts.append(f'<g class="{style}"><polyline class="line" points="{track}"/>')
        for mean, share, found in marks:
            words = (
                f"{detection.name}, noise score {found.low:.1f} to {found.high:.1f}: "
                f"{write_count(found.count, 'row')}, mean {write_decimal(mean)}, {write_share(share)} planted"
            )
            parts.append(
                f'<circle class="mark" cx="{across(mean):.2f}" cy="{up(share):.2f}" r="4">'
                f"<title>{escape(words)}</title></circle>"
            )
        parts.append("</g>")
    parts.append(_draw_legend([(style, detection.name) for style, detection in named]))
    parts.append(write_text((_LEFT + WIDTH) / 2, _HEIGHT - 6, "noise score; upwards: share planted", "middle"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (every text in it is escaped above)


def _draw_arm(x: float, arm: ArmSummary, point: CurvePoint, up: Place) -> str:
    low, high = (up(end) for end in arm.interval)
    words = (
        f"{arm.arm}, {write_share(point.keep_fraction)} kept: {write_share(arm.mean)} "
        f"({write_share(arm.interval[0])} to {write_share(arm.interval[1])})"
    )
    return (
        f"<g><title>{escape(words)}</title>"
        f'<line class="reach" x1="{x:.2f}" y1="{low:.2f}" x2="{x:.2f}" y2="{high:.2f}"/>'
        f'<circle class="mark" cx="{x:.2f}" cy="{up(arm.mean):.2f}" r="4"/></g>'
    )


def _draw_axes(across: Place, up: Place, shares: Sequence[float], low: float, high: float) -> str:
    base, end = _HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{end}" y2="{base}"/>']
    parts += [write_text(across(share), base + 16, write_share(share, 0), "middle") for share in shares]
    for value in (low, (low + high) / 2, high):
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{up(value):.2f}" x2="{end}" y2="{up(value):.2f}"/>')
        parts.append(write_text(_LEFT - 6, up(value) + 4, write_share(value), "end"))
    return "".join(parts)


def _draw_legend(entries: Sequence[tuple[str, str]]) -> str:
    parts, x = [], float(_LEFT)
    for style, name in entries:
        parts.append(f'<g class="{style}"><circle class="mark" cx="{x + _MARK:.1f}" cy="12" r="4"/></g>')
        parts.append(write_text(x + 3 * _MARK, 16, name, "start"))
        x += 3 * _MARK + 8.0 * len(name) + 16
    return "".join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Place:
    """Return the place of a value between `start` and `end` of the picture."""
    return lambda value: start + (value - low) / (high - low) * (end - start)
