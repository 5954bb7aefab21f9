"""Charts with lines on logarithmic axes, side by side in one SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

#: colors that people who do not see all colors can tell apart (Okabe and Ito), and that show on white
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#000000")
#: of one chart, in pixels: the whole, and the margins of its axes
WIDTH, HEIGHT = 360, 340
LEFT, RIGHT, TOP, BOTTOM = 50, 30, 34, 104

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Lines by name over the same axes; all values are above zero."""

    title: str
    #: what is on the horizontal axis
    x: str
    lines: Mapping[str, Points]


def draw(charts: Sequence[Chart]) -> str:
    """The charts as one SVG."""
    body = "\n".join(
        f'<g transform="translate({WIDTH * i},0)">\n{_drawn(chart)}\n</g>' for i, chart in enumerate(charts)
    )
    width = WIDTH * len(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from `low` to `high`, in pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        part = math.log10(value / self.low) / math.log10(self.high / self.low)
        return round(self.start + part * (self.end - self.start), 1)

    @property
    def ticks(self) -> Iterator[float]:
        """The powers of ten on it."""
        yield from (
            10.0**power for power in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        )


def _drawn(chart: Chart) -> str:
    values = [point for points in chart.lines.values() for point in points]
    x = _Axis(min(at for at, _ in values) / 1.2, max(at for at, _ in values) * 1.2, LEFT, WIDTH - RIGHT)
    low, high = min(value for _, value in values), max(value for _, value in values)
    # Whole decades, so that a line that is flat looks flat.
    y = _Axis(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high * 1.01)), HEIGHT - BOTTOM, TOP)
    parts = [f'<text x="{LEFT}" y="18" font-size="13">{escape(chart.title)}</text>']
    for tick in y.ticks:
        at = y.place(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{tick:,g}</text>')
    for tick in x.ticks:
        parts.append(f'<text x="{x.place(tick)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:,.0f}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - BOTTOM + 34}" text-anchor="middle">{escape(chart.x)}</text>'
    )
    for color, points in zip(COLORS, chart.lines.values(), strict=False):
        path = " ".join(f"{x.place(at)},{y.place(value)}" for at, value in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
    if len(chart.lines) > 1:  # the name of a single line is in the title
        parts += _legend(tuple(chart.lines))
    return "\n".join(parts)


def _legend(names: Sequence[str]) -> Iterator[str]:
    for number, (color, name) in enumerate(zip(COLORS, names, strict=False)):
        left, top = LEFT + 150 * (number % 2), HEIGHT - BOTTOM + 54 + 16 * (number // 2)
        yield f'<rect x="{left}" y="{top - 8}" width="10" height="10" fill="{color}"/>'
        yield f'<text x="{left + 15}" y="{top + 1}">{escape(name)}</text>'
