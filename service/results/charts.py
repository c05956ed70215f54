"""Charts as inline SVG, drawn on the server: no script, and every number also stands as text."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from service.results.schemas import ArmSummary, Histogram
from service.wording import write_count, write_number, write_share

_WIDTH, _HEIGHT = 560, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 40
_LEAST_BAR = 2.0


def draw_histogram(histogram: Histogram, axis: str, title: str) -> Markup:
    """Return a bar chart of the counts; each bar says its range and count when pointed at."""
    most = max(histogram.counts, default=0) or 1
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    bar = plot_width / max(len(histogram.counts), 1)
    parts = [_open_svg(_HEIGHT, title)]
    for index, count in enumerate(histogram.counts):
        # A bin that is not empty must be seen, however full another one is.
        height = max(plot_height * count / most, _LEAST_BAR) if count else 0.0
        words = (
            f"{write_number(histogram.edges[index])} to {write_number(histogram.edges[index + 1])}: "
            f"{write_count(count, 'example')}"
        )
        parts.append(
            f'<rect class="bar" x="{_LEFT + index * bar:.2f}" y="{_TOP + plot_height - height:.2f}" '
            f'width="{max(bar - 1, 0.5):.2f}" height="{height:.2f}"><title>{escape(words)}</title></rect>'
        )
    base = _TOP + plot_height
    parts.append(f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _RIGHT}" y2="{base}"/>')
    parts.append(_text(_LEFT - 6, _TOP + 8, write_count(most), "end"))
    parts.append(_text(_LEFT - 6, base, "0", "end"))
    if histogram.edges:
        parts.append(_text(_LEFT, base + 16, write_number(histogram.edges[0]), "start"))
        parts.append(_text(_WIDTH - _RIGHT, base + 16, write_number(histogram.edges[-1]), "end"))
    parts.append(_text(_LEFT + plot_width / 2, base + 32, axis, "middle"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (every text in it is escaped above)


def draw_arms(arms: Sequence[ArmSummary], title: str) -> Markup:
    """Return the mean accuracy of each arm with its interval, on one scale."""
    low = min(min(arm.interval[0], *arm.accuracy) for arm in arms)
    high = max(max(arm.interval[1], *arm.accuracy) for arm in arms)
    margin = max((high - low) * 0.1, 0.005)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)
    left, row_height = 88, 34
    height = row_height * len(arms) + 34

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (_WIDTH - left - _RIGHT)

    parts = [_open_svg(height, title)]
    for index, arm in enumerate(arms):
        y = 20 + index * row_height
        first, last = (place(min(max(end, low), high)) for end in arm.interval)
        words = f"{arm.arm}: {write_share(arm.mean)} ({write_share(arm.interval[0])} to {write_share(arm.interval[1])})"
        parts.append(f"<g><title>{escape(words)}</title>")
        parts.append(_text(left - 10, y + 4, arm.arm, "end"))
        parts.append(f'<line class="interval" x1="{first:.2f}" y1="{y}" x2="{last:.2f}" y2="{y}"/>')
        parts.extend(f'<circle class="seed" cx="{place(one):.2f}" cy="{y}" r="2.5"/>' for one in arm.accuracy)
        parts.append(f'<circle class="mean" cx="{place(arm.mean):.2f}" cy="{y}" r="5"/></g>')
    base = height - 22
    parts.append(f'<line class="axis" x1="{left}" y1="{base}" x2="{_WIDTH - _RIGHT}" y2="{base}"/>')
    parts.append(_text(left, base + 16, write_share(low), "start"))
    parts.append(_text(_WIDTH - _RIGHT, base + 16, write_share(high), "end"))
    parts.append(_text((left + _WIDTH) / 2, base + 16, "test accuracy", "middle"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (every text in it is escaped above)


def _open_svg(height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
