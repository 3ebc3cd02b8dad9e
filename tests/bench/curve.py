"""A figure of curves in SVG: linear axes with words, lines told apart by dashes, marks to compare with. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from floe import svg

WIDTH, HEIGHT = 560, 260  # of the field
LEFT, TOP, RIGHT, BOTTOM, ROW = 56, 20, 24, 52, 20
DASHES = ("", "7 4", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Axis:
    """What is told along an axis, from `low` to `high`, with a number every `step`."""

    words: str
    low: float
    high: float
    step: float

    def place(self, value: float, start: float, stop: float) -> float:
        """From a value to its place, where `low` is at `start` and `high` at `stop`."""
        return start + (min(max(value, self.low), self.high) - self.low) / (self.high - self.low) * (stop - start)

    def numbers(self) -> list[float]:
        return [self.low + k * self.step for k in range(round((self.high - self.low) / self.step) + 1)]


@dataclass(frozen=True)
class Curve:
    """What is measured, place by place; `dash` is one of `DASHES`, by its number, `width` that of the line."""

    name: str
    points: Sequence[tuple[float, float]]
    dash: int = 0
    width: float = 1.5


@dataclass(frozen=True)
class Mark:
    """A value to compare with: upright at a place of the x axis, or level at one of the y axis."""

    name: str
    value: float
    upright: bool


def draw(curves: Sequence[Curve], x: Axis, y: Axis, marks: Sequence[Mark]) -> str:
    """The text of an SVG file; values outside an axis are drawn at its edge."""
    under = TOP + HEIGHT + BOTTOM
    parts = [*_grid(x, y), *(_mark(one, x, y) for one in marks), *(_curve(one, x, y) for one in curves)]
    parts += [part for number, one in enumerate(curves) for part in _legend(one, number, under)]
    return svg.document(LEFT + WIDTH + RIGHT, under + ROW * ((len(curves) + 1) // 2), parts)


def _across(x: Axis, value: float) -> float:
    return x.place(value, LEFT, LEFT + WIDTH)


def _up(y: Axis, value: float) -> float:
    return y.place(value, TOP + HEIGHT, TOP)


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    for value in y.numbers():
        yield f'<path d="M{LEFT} {_up(y, value):.1f}h{WIDTH}" stroke="{svg.INK}" stroke-width="0.5" opacity="0.4"/>'
        yield svg.text(LEFT - 8, _up(y, value) + 4, f"{value:g}", "end")
    for value in x.numbers():
        yield f'<path d="M{_across(x, value):.1f} {TOP + HEIGHT}v5" stroke="{svg.INK}"/>'
        yield svg.text(_across(x, value), TOP + HEIGHT + 18, f"{value:g}")
    yield svg.text(LEFT + WIDTH / 2, TOP + HEIGHT + 36, x.words)
    yield f'<g transform="rotate(-90 14 {TOP + HEIGHT / 2})">{svg.text(14, TOP + HEIGHT / 2, y.words)}</g>'


def _mark(mark: Mark, x: Axis, y: Axis) -> str:
    if mark.upright:
        at = _across(x, mark.value)
        path, words = f"M{at:.1f} {TOP}v{HEIGHT}", svg.text(at - 5, TOP + HEIGHT - 8, mark.name, "end")
    else:
        at = _up(y, mark.value)
        path, words = f"M{LEFT} {at:.1f}h{WIDTH}", svg.text(LEFT + WIDTH - 4, at - 5, mark.name, "end")
    return f'<path d="{path}" stroke="{svg.INK}" stroke-width="1" stroke-dasharray="1 3"/>{words}'


def _curve(curve: Curve, x: Axis, y: Axis) -> str:
    return _line(" ".join(f"{_across(x, at):.1f},{_up(y, value):.1f}" for at, value in curve.points), curve)


def _legend(curve: Curve, number: int, under: float) -> Iterator[str]:
    left, at = LEFT + number % 2 * WIDTH / 2, under + number // 2 * ROW
    yield _line(f"{left:g},{at} {left + 40:g},{at}", curve)
    yield svg.text(left + 48, at + 4, curve.name, "start")


def _line(points: str, curve: Curve) -> str:
    dashes = f' stroke-dasharray="{DASHES[curve.dash]}"' if curve.dash else ""
    return f'<polyline points="{points}" fill="none" stroke="{svg.INK}" stroke-width="{curve.width:g}"{dashes}/>'
