"""A small figure in SVG: panels side by side, logarithmic axes, two measures told apart by marks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from floe import svg
from floe.svg import INK

WIDTH, HEIGHT = 250, 220  # of one panel
LEFT, TOP, GAP, BOTTOM = 56, 54, 44, 56


@dataclass(frozen=True)
class Panel:
    """What grows along the x axis, and at each x the values of the measures; all above 0."""

    title: str
    points: Sequence[tuple[float, Sequence[float]]]


@dataclass(frozen=True)
class Scale:
    """From values to places, logarithmic: `low` is at `start`, `high` at `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.stop - self.start)


def draw(panels: Sequence[Panel], measures: Sequence[str]) -> str:
    """The figure as the text of an SVG file. One or two measures, named in the order of the values."""
    values = [value for panel in panels for _, row in panel.points for value in row]
    low, high = decades(min(values), max(values))
    y = Scale(low, high, TOP + HEIGHT, TOP)
    width, height = LEFT + len(panels) * (WIDTH + GAP), TOP + HEIGHT + BOTTOM
    parts = list(_legend(measures))
    for number, panel in enumerate(panels):
        left = LEFT + number * (WIDTH + GAP)
        parts += [*_decades(y, left, labelled=not number), *_panel(panel, left, y)]
    return svg.document(width, height, parts)


def decades(low: float, high: float) -> tuple[float, float]:
    """The powers of ten around a range; never the same one twice."""
    below, above = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**below, 10.0 ** max(above, below + 1)


def words(value: float) -> str:
    """A number with two significant digits at least: 0.034, 0.2, 68, 1000."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _legend(measures: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(measures):
        x = LEFT + number * (WIDTH + GAP)
        yield _line([(x, 18), (x + 40, 18)], dashed=bool(number)) + _mark(x + 20, 18, number)
        yield svg.text(x + 50, 22, name, "start")


def _decades(y: Scale, left: float, *, labelled: bool) -> Iterator[str]:
    value = y.low
    while value <= y.high * 1.001:
        yield f'<path d="M{left} {y(value):.1f}h{WIDTH}" stroke="{INK}" stroke-width="0.5" opacity="0.5"/>'
        if labelled:
            yield svg.text(left - 8, y(value) + 4, f"{value:g}", "end")
        value *= 10


def _panel(panel: Panel, left: float, y: Scale) -> Iterator[str]:
    xs = [at for at, _ in panel.points]
    x = Scale(min(xs), max(xs), left + 24, left + WIDTH - 24)
    for at in xs:
        yield f'<path d="M{x(at):.1f} {TOP + HEIGHT}v5" stroke="{INK}"/>'
        yield svg.text(x(at), TOP + HEIGHT + 19, words(at))
    yield svg.text(left + WIDTH / 2, TOP + HEIGHT + 42, panel.title)
    for number in range(len(panel.points[0][1])):
        places = [(x(at), y(row[number])) for at, row in panel.points]
        yield _line(places, dashed=bool(number))
        for (px, py), (_, row) in zip(places, panel.points, strict=True):
            yield _mark(px, py, number) + svg.text(px - 5, py - 10, words(row[number]))


def _line(places: Sequence[tuple[float, float]], *, dashed: bool) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{INK}" stroke-width="1.5"{dash}/>'


def _mark(x: float, y: float, number: int) -> str:
    if number:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
