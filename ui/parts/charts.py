"""Charts as specifications of Vega-Lite, made by Altair once; the data goes to them beside, so a new row is drawn into
the chart that is there. Lines are told apart by dash and marker as well as by colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import altair as alt
import pyarrow
import streamlit as st

from ui.parts.browser import zone_name

HEIGHT = 310  # pixels; the same with one round and with a thousand
MARKED = 30  # markers on a line; more of them hide it
DASHES = ([1, 0], [6, 3], [2, 2])
MARKERS = ("circle", "square", "triangle-up")
GREY = "#808495"
COLORS = ("#1c83e1", "#d9730d", "#29a35a")  # readable on white and on black
Points = Iterable[tuple[float, float | None]]
Columns = dict[str, list[Any]]


def lines(
    key: str, series: Mapping[str, Points], *, x: str, y: str, form: str, unit: str = "", height: int = HEIGHT,
    from_zero: bool = False,
) -> bool:  # fmt: skip
    """Draw lines by their names in words; False, and nothing drawn, where there is no value at all.

    `x`, `y`: titles of the axes with units. `form`: of the values of y, as d3-format; `unit` is written behind each.
    """
    columns = long_form(series)
    if not columns["value"]:
        return False
    spec = line_spec(tuple(series), x, y, form, unit, from_zero)
    _draw(key, columns, spec, height, f"{y} by {x}")
    return True


def over_time(key: str, points: Iterable[tuple[datetime, float | None]], *, y: str, height: int = HEIGHT) -> bool:
    """Draw one value over times, oldest first; False, and nothing drawn, where there is no value.

    `y`: its name with its unit.
    """
    there = [(time, value) for time, value in points if value is not None]
    if not there:
        return False
    columns: Columns = {"x": [time for time, _ in there], "value": [value for _, value in there]}
    form = "%H:%M:%S" if there[-1][0] - there[0][0] < timedelta(days=1) else "%m-%d %H:%M"
    _draw(key, columns, time_spec(y, zone_name(), form, len(there) < MARKED), height, f"{y} over time")
    return True


def bars(key: str, counts: Mapping[str, int], *, x: str, height: int) -> None:
    """Draw a bar with its number for each word, in the order given."""
    columns: Columns = {"word": list(counts), "count": list(counts.values())}
    _draw(key, columns, bar_spec(tuple(counts), x), height, x)


def long_form(series: Mapping[str, Points]) -> Columns:
    """A row for each value that there is; `marked` are some of a line's points and its last."""
    columns: Columns = {"x": [], "value": [], "line": [], "number": [], "marked": []}
    for number, (name, points) in enumerate(series.items()):
        there = [(x, value) for x, value in points if value is not None]
        apart = max(len(there) // MARKED, 1)
        columns["x"] += [x for x, _ in there]
        columns["value"] += [value for _, value in there]
        columns["line"] += [name] * len(there)
        columns["number"] += [str(number)] * len(there)
        columns["marked"] += [n % apart == 0 or n == len(there) - 1 for n in range(len(there))]
    return columns


@cache
def line_spec(names: Sequence[str], x: str, y: str, form: str, unit: str, from_zero: bool) -> dict[str, Any]:
    """Lines over whole numbers. The y axis begins where the values do, unless told otherwise."""
    legend, colors = _legend(None, 1) if len(names) > 1 else None, _scale(names, COLORS)
    base = _chart().encode(
        x=alt.X("x:Q", title=x, scale=_extent("x", nice=False), axis=alt.Axis(format=",d", tickMinStep=1, grid=False)),
        y=alt.Y("value:Q", title=y, scale=_extent("value", from_zero=from_zero), axis=_axis(form, unit)),
        tooltip=[
            alt.Tooltip("x:Q", title=x, format=",d"),
            alt.Tooltip("value:Q", title=y, format=form),
            alt.Tooltip("line:N", title="line"),
        ],
    )
    line = base.mark_line(strokeWidth=2).encode(
        color=alt.Color("line:N", scale=colors, legend=legend),
        strokeDash=alt.StrokeDash("line:N", scale=_scale(names, DASHES), legend=legend),
    )
    marks = base.transform_filter("datum.marked").mark_point(filled=True, size=45, opacity=1, strokeWidth=0)
    numbers = [str(n) for n in range(len(names))]  # scales of their own: Vega joins legends of equal ones
    fill = alt.Fill("number:N", scale=_scale(numbers, COLORS), legend=None)
    shape = alt.Shape("number:N", scale=_scale(numbers, MARKERS), legend=None)
    return _spec(line + marks.encode(fill=fill, shape=shape))


@cache
def time_spec(y: str, zone: str, form: str, marked: bool) -> dict[str, Any]:
    """A line over times, which Vega draws in the zone of the reader's browser: its name is below the axis."""
    axis = alt.Axis(format=form, grid=False, labelOverlap=True, tickCount=4)
    chart = _chart().encode(
        x=alt.X("x:T", title=zone, scale=_extent("x", nice=False), axis=axis),
        y=alt.Y("value:Q", title=y, scale=_extent("value"), axis=_axis(",.3~f", "")),
        tooltip=[
            alt.Tooltip("x:T", title=f"time ({zone})", format="%Y-%m-%d %H:%M:%S"),
            alt.Tooltip("value:Q", title=y, format=",.1f"),
        ],
    )
    return _spec(chart.mark_line(strokeWidth=2, color=COLORS[0], point=marked))


@cache
def bar_spec(words: Sequence[str], x: str) -> dict[str, Any]:
    """Horizontal bars, each with its number at the end."""
    base = _chart().encode(
        x=alt.X(
            "count:Q",
            title=x,
            scale=_extent("count", from_zero=True, room=1.15),
            axis=alt.Axis(format=",d", tickMinStep=1, grid=False),
        ),
        y=alt.Y("word:N", title=None, scale=alt.Scale(domain=list(words)), axis=alt.Axis(labelLimit=0)),
    )
    number = base.mark_text(align="left", dx=4, color=GREY).encode(text=alt.Text("count:Q", format=",d"))
    return _spec(base.mark_bar(size=24) + number)


def network(
    key: str, columns: Columns, rows: int, across: int, *, kinds: Sequence[str], links: Sequence[str], alt: str
) -> None:
    """Draw nodes and the lines between them (`ui.parts.topology.marks`)."""
    spec = network_spec(rows, across, tuple(kinds), tuple(links))
    _draw(key, columns, spec, ROW * rows + LEGENDS, alt)


@cache
def network_spec(rows: int, across: int, kinds: Sequence[str], links: Sequence[str]) -> dict[str, Any]:
    """A picture with its own coordinates: links told apart by dash and strength, nodes by shape, both by words."""
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=None)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[-0.5, rows - 0.4], reverse=True, nice=False), axis=None)
    base = _chart().encode(x=x, y=y)
    legend = _legend("link", 3)
    bus = base.transform_filter("datum.mark == 'bus'").mark_rule(color=GREY, opacity=0.6).encode(x2="x2:Q", y2="y2:Q")
    line = (
        base.transform_filter("datum.mark == 'line'")
        .mark_rule(strokeWidth=2)
        .encode(
            x2="x2:Q",
            y2="y2:Q",
            strokeDash=alt.StrokeDash("link:N", scale=_scale(links, LINES), legend=legend),
            color=alt.Color("link:N", scale=_scale(links, SHADES), legend=legend),
        )
    )
    told = [alt.Tooltip(f"{name}:N") for name in ("kind", "name", "word", "link")]
    node = (
        base.transform_filter("datum.mark == 'node'")
        .mark_point(filled=True, size=240, opacity=1, color=COLORS[0])
        .encode(shape=alt.Shape("kind:N", scale=_scale(kinds, SHAPES), legend=None), tooltip=told)
    )
    words = base.mark_text(
        color=GREY, limit=alt.ExprRef(f"datum.y < 1.6 ? width / 4 : width / {across} - 4"), baseline="middle"
    )
    name = words.transform_filter("datum.mark == 'name'").encode(text="name:N")
    word = words.transform_filter("datum.mark == 'word'").encode(text="word:N")
    return _spec(bus + line + node + name + word)


ROW, LEGENDS = 84, 50  # pixels
LINES = ([1, 0], [7, 4], [1, 6])
SHAPES = ("square", "diamond", "triangle-up", "cross", "circle")
SHADES = (COLORS[0], GREY, "#e5484d")
ROWS = "rows"  # what the data of a chart is called


def _chart() -> alt.Chart:
    return alt.Chart(alt.NamedData(ROWS))


def _draw(key: str, columns: Columns, spec: dict[str, Any], height: int, alt: str) -> None:
    rows = pyarrow.table(columns)  # what Streamlit makes of it anyhow, by way of pandas
    st.vega_lite_chart(spec=spec | {"datasets": {ROWS: rows}}, key=key, height=height, width="stretch", alt=alt)


def _axis(form: str, unit: str) -> alt.Axis:
    if not unit:
        return alt.Axis(tickCount=6, format=form)
    return alt.Axis(tickCount=6, labelExpr=f"format(datum.value, '{form}') + '{unit}'")


def _legend(title: str | None, columns: int) -> alt.Legend:
    return alt.Legend(orient="top", title=title, labelLimit=0, symbolType="stroke", symbolSize=250, columns=columns)


def _extent(field: str, *, from_zero: bool = False, nice: bool = True, room: float = 1) -> alt.Scale:
    """From the least to the greatest value, 0 to 1 without any: Streamlit brings the data after the chart is there, and
    Vega would complain in the browser's console that it has no extent."""
    values = f"extent(pluck(data('{ROWS}'), '{field}'))"
    least, greatest = (f"length(data('{ROWS}')) ? {values}[{n}] * {room} : {n}" for n in (0, 1))
    return alt.Scale(domain=[0 if from_zero else {"expr": least}, {"expr": greatest}], nice=nice, zero=from_zero)


def _scale(names: Sequence[str], marks: Sequence[Any]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=list(marks[: len(names)]))


def _spec(chart: Any) -> dict[str, Any]:
    """Without Altair's own looks, so that those of the page hold, light or dark."""
    spec: dict[str, Any] = chart.to_dict()
    del spec["config"]
    return spec
