"""Charts as inline SVG, drawn on the server: no script, and every number also stands as text."""

from markupsafe import Markup, escape

from service.results.schemas import Histogram
from service.wording import write_count, write_number

WIDTH, _HEIGHT = 560, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 40
_LEAST_BAR = 2.0


def draw_histogram(histogram: Histogram, axis: str, title: str) -> Markup:
    """Return a bar chart of the counts; each bar says its range and count when pointed at."""
    most = max(histogram.counts, default=0) or 1
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    bar = plot_width / max(len(histogram.counts), 1)
    parts = [open_svg(_HEIGHT, title)]
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
    parts.append(f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{WIDTH - _RIGHT}" y2="{base}"/>')
    parts.append(write_text(_LEFT - 6, _TOP + 8, write_count(most), "end"))
    parts.append(write_text(_LEFT - 6, base, "0", "end"))
    if histogram.edges:
        parts.append(write_text(_LEFT, base + 16, write_number(histogram.edges[0]), "start"))
        parts.append(write_text(WIDTH - _RIGHT, base + 16, write_number(histogram.edges[-1]), "end"))
    parts.append(write_text(_LEFT + plot_width / 2, base + 32, axis, "middle"))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 (every text in it is escaped above)


def open_svg(height: int, title: str) -> str:
    """Return the start of a picture of the common width, with its title for those who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">'
    )


def write_text(x: float, y: float, text: str, anchor: str) -> str:
    """Return a text at a place; `anchor` says which part of it stands there: start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
