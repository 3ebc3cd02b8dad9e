"""Who holds what, as a picture: a row for each device, a disc for each class that it has, its rows as a bar. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_client.data.holdings import Holding
from floe import svg

ROW, COLUMN = 24.0, 24.0  # of one device, of one class
TALL, WIDE = 960.0, 720.0  # more devices or classes are drawn closer together
WRITTEN = 12.0  # a row or column of less than this has no words
BAR, TOP, BOTTOM, GAP = 120.0, 44.0, 12.0, 14.0
LETTER = 6.6  # width of one, about


def draw(found: Sequence[Holding]) -> str:
    """The text of an SVG file. A disc's area and a bar's length are proportional to training rows."""
    classes = max(len(one.train) for one in found)
    row, column = min(ROW, TALL / len(found)), min(COLUMN, WIDE / classes)
    left = GAP + (LETTER * max(len(one.device) for one in found) if row >= WRITTEN else 0)
    bars = left + classes * column + GAP
    parts = [*_head(left, bars, classes, column)]
    most, largest = max(max(one.train) for one in found), max(sum(one.train) for one in found)
    for number, one in enumerate(found):
        y = TOP + (number + 0.5) * row
        parts += [*_discs(one, left, y, column, min(row, column) / 2 / most**0.5)]
        parts += [*_bar(one, bars, y, row, BAR / largest)]
        if row >= WRITTEN:
            parts.append(svg.text(left - GAP / 2, y + 4, one.device, "end"))
    width = bars + BAR + LETTER * (len(str(largest)) + 2)
    return svg.document(width, TOP + len(found) * row + BOTTOM, parts)


def _head(left: float, bars: float, classes: int, column: float) -> Iterator[str]:
    yield svg.text(left + classes * column / 2, 16, "class", "middle")
    yield svg.text(bars, 16, "training rows", "start")
    step = 1 if column >= WRITTEN else -(-classes // 10)
    for label in range(0, classes, step):
        yield svg.text(left + (label + 0.5) * column, TOP - 8, str(label))


def _discs(one: Holding, left: float, y: float, column: float, scale: float) -> Iterator[str]:
    for label, count in enumerate(one.train):
        if count:
            x, radius = left + (label + 0.5) * column, max(scale * count**0.5, 0.5)
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{label}: {count}</title></circle>'


def _bar(one: Holding, x: float, y: float, row: float, scale: float) -> Iterator[str]:
    rows, height = sum(one.train), row / 2
    yield f'<rect x="{x:.1f}" y="{y - height / 2:.1f}" width="{rows * scale:.1f}" height="{height:.1f}" opacity="0.6"/>'
    if row >= WRITTEN:
        yield svg.text(x + rows * scale + 4, y + 4, str(rows), "start")
