"""Line charts as SVG, small ones beside each other, readable on light and dark pages."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, COLUMNS = 440, 210, 2
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 58
COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa8800", "#3399bb", "#aa3377", "#888888")
"""Paul Tol's bright scheme: distinguishable with colour blindness; two are darker, for light pages."""
TEXT = "#767676"
"""Contrast of 4.5 against white, and enough against black."""
CHARACTER = 6.2


@dataclass(frozen=True)
class Chart:
    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    x: str
    """The title of the horizontal axis."""
    logarithmic: bool = False
    """Both axes."""


def svg(charts: Sequence[Chart]) -> str:
    rows = math.ceil(len(charts) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT
    drawn = ""
    for n, chart in enumerate(charts):
        place = n % COLUMNS * WIDTH, n // COLUMNS * HEIGHT
        drawn += f'<g transform="translate{place}">{"".join(_chart(chart))}</g>\n'
    head = (
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    )
    return f'<svg {head} font-family="sans-serif" font-size="11" fill="{TEXT}">\n{drawn}</svg>\n'


def _chart(chart: Chart) -> Iterator[str]:
    points = [point for line in chart.lines.values() for point in line]
    xs, ys = (
        _ticks([x for x, _ in points], chart.logarithmic),
        _ticks([y for _, y in points], chart.logarithmic),
    )

    def place(x: float, y: float) -> tuple[float, float]:
        right, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return (
            LEFT + right * _share(x, xs, chart.logarithmic),
            TOP + down * (1 - _share(y, ys, chart.logarithmic)),
        )

    yield f'<text x="{LEFT}" y="18" font-weight="bold">{escape(chart.title)}</text>'
    for tick in ys:
        x, y = place(xs[0], tick)
        yield f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="{TEXT}" stroke-opacity=".3"/>'
        yield f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_label(tick)}</text>'
    for tick in xs:
        x, y = place(tick, ys[0])
        yield f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{_label(tick)}</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 31}" text-anchor="end">{escape(chart.x)}</text>'
    at = float(LEFT)
    for (name, line), colour in zip(chart.lines.items(), COLOURS, strict=False):
        way = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in line)
        yield f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - 10}" fill="{colour}">{escape(name)}</text>'
        at += CHARACTER * len(name) + 12


def _ticks(values: Sequence[float], logarithmic: bool) -> list[float]:
    """Round numbers from below the smallest value to above the largest one; from 0 on a linear axis."""
    top = max(values, default=1.0) or 1.0
    if logarithmic:
        powers = math.floor(math.log10(min(values))), math.ceil(math.log10(top))
        return [10.0**power for power in range(powers[0], max(powers[1], powers[0] + 1) + 1)]
    step = 10.0 ** math.floor(math.log10(top))
    step = next(step * part for part in (0.2, 0.25, 0.5, 1, 2) if top / (step * part) <= 6)
    return [number * step for number in range(math.ceil(top / step - 1e-9) + 1)]


def _share(value: float, ticks: Sequence[float], logarithmic: bool) -> float:
    if logarithmic:
        low, high = math.log10(ticks[0]), math.log10(ticks[-1])
        return (math.log10(value) - low) / (high - low)
    return value / ticks[-1]


def _label(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
