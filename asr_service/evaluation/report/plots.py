"""Small pictures as inline SVG. Colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 54, 22, 10, 42
MAX_POINTS = 200


@dataclass(frozen=True, slots=True)
class Series:
    """A line or a set of bars: `style` is a class of the style sheet (series-a, series-b), dashed where it says so."""

    name: str
    values: Sequence[float]
    style: str = "series-a"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """Both axes from zero."""

    x_max: float
    y_max: float
    x_label: str
    y_label: str
    x_percent: bool = False
    y_percent: bool = False

    def x(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, value / self.x_max), 2)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, value / self.y_max), 2)

    def draw(self) -> str:
        parts = []
        for value in ticks(self.y_max):
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(value)}" y2="{self.y(value)}"/>'
            )
            parts.append(_text(LEFT - 6, self.y(value) + 3.5, _number(value, self.y_percent), "end"))
        parts += [
            _text(self.x(value), HEIGHT - BOTTOM + 16, _number(value, self.x_percent), "middle")
            for value in ticks(self.x_max)
        ]
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, self.x_label, "middle"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">'
            f"{_escape(self.y_label)}</text>"
        )
        return "".join(parts)


def histogram(series: Sequence[Series], *, upper: float, bins: int, x_label: str, title: str) -> Markup:
    """Shares of the values in equal bins from 0 to `upper`; larger ones are in the last bin."""
    heights = []
    for one in series:
        counts, _ = np.histogram(np.minimum(one.values, upper), bins=bins, range=(0, upper))
        heights.append(counts / max(1, len(one.values)))
    axes = Axes(upper, ceiling(max(float(height.max()) for height in heights)), x_label, "share", True, True)
    step = axes.x(upper / bins) - axes.x(0)
    width = (step - 1) / len(series)
    bars = [
        f'<rect class="{one.style} fill" x="{axes.x(0) + index * step + place * width:.2f}" y="{axes.y(height)}" '
        f'width="{width:.2f}" height="{axes.y(0) - axes.y(height):.2f}"/>'
        for place, (one, values) in enumerate(zip(series, heights, strict=True))
        for index, height in enumerate(values.tolist())
    ]
    return _svg(axes.draw() + "".join(bars), title)


def cumulative(series: Sequence[Series], *, x_label: str, title: str) -> Markup:
    """For each x the share of the values up to it; the axis ends where 99 % of every series is."""
    upper = ceiling(max(float(np.percentile(one.values, 99)) for one in series))
    axes = Axes(upper, 1.0, x_label, "share up to", False, True)
    grid = np.linspace(0, upper, MAX_POINTS)
    lines = []
    for one in series:
        shares = np.searchsorted(np.sort(np.asarray(one.values)), grid, side="right") / len(one.values)
        lines.append(_line(axes, zip(grid.tolist(), shares.tolist(), strict=True), one))
    return _svg(axes.draw() + "".join(lines), title)


def reliability(series: Sequence[tuple[Series, Sequence[float]]], *, title: str) -> Markup:
    """Share of right words (a series' second part) against mean confidence; the diagonal is perfect calibration."""
    axes = Axes(1.0, 1.0, "confidence", "words right", True, True)
    diagonal = f'<line class="diagonal" x1="{axes.x(0)}" y1="{axes.y(0)}" x2="{axes.x(1)}" y2="{axes.y(1)}"/>'
    drawn = []
    for one, accuracy in series:
        points = list(zip(one.values, accuracy, strict=True))
        drawn.append(_line(axes, points, one))
        drawn += [f'<circle class="{one.style} fill" cx="{axes.x(x)}" cy="{axes.y(y)}" r="3"/>' for x, y in points]
    return _svg(axes.draw() + diagonal + "".join(drawn), title)


def ticks(upper: float) -> list[float]:
    """Four to six round numbers from 0 to `upper`."""
    raw = upper / 5
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    return [round(index * step, 10) for index in range(int(upper / step + 1e-9) + 1)]


def ceiling(value: float) -> float:
    """The next number that ticks end at, at least a hundredth."""
    value = max(value, 0.01)
    steps = ticks(value)
    return value if steps[-1] >= value else steps[-1] + steps[1]


def _line(axes: Axes, points: Iterable[tuple[float, float]], one: Series) -> str:
    dashed = " dashed" if one.dashed else ""
    drawn = " ".join(f"{axes.x(x)},{axes.y(y)}" for x, y in points)
    return f'<polyline class="{one.style} stroke{dashed}" points="{drawn}"/>'


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:g} %" if percent else f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escape(text)}</text>'


def _escape(text: str) -> str:
    return str(Markup.escape(text))


def _svg(inside: str, title: str) -> Markup:
    # Every text in `inside` went through _escape; the rest are numbers and class names of this module.
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_escape(title)}">{inside}</svg>')  # noqa: S704
