"""Tables: columns with units, times in the reader's zone, and selecting rows, for which a table stands still.

What is in a cell is shown as text (Glide Data Grid draws on a canvas): no HTML, no Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import streamlit as st

from ui.parts.browser import zone, zone_name
from ui.parts.text import plain

WIDTHS = {"hash": 120, "words": 260}  # pixels: their beginning; a double click into the cell shows all
HEIGHT = 420  # pixels; the same with one row and with thousands
ROW = 35  # pixels, of a row and of the head
Kind = Literal["text", "words", "hash", "time", "kB", "GB", "whole", "number", "fine", "tenths", "percent"]
FORMS = {"whole": "%d", "number": "%.4f", "fine": "%.3g"}
FACTORS = {"percent": 100, "kB": 1e-3, "GB": 1e-9}  # what a value of the log is shown times
TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "words": pa.string(),
    "hash": pa.string(),
    "time": pa.timestamp("ms", tz="UTC"),
    "kB": pa.float64(),
    "GB": pa.float64(),
    "whole": pa.int64(),
    "number": pa.float64(),
    "fine": pa.float64(),
    "tenths": pa.float64(),
    "percent": pa.float64(),
}


def table(columns: Mapping[str, tuple[Kind, Sequence[Any]]]) -> pa.Table:
    """Columns by their titles, each of a kind; times as in the log, percent of shares 0..1, kB and GB
    of bytes."""
    return pa.table({title: pa.array(_values(kind, values), TYPES[kind]) for title, (kind, values) in columns.items()})


def height(rows: int, most: int = HEIGHT) -> int:
    """Pixels of a table without empty rows, for what does not grow while it is looked at."""
    return min(ROW * (rows + 1) + 2, most)


def settings(columns: Mapping[str, tuple[Kind, Sequence[Any]]]) -> dict[str, Any]:
    """How Streamlit shows each column; the first one stays in sight."""
    return {
        title: _setting(kind, pinned=place == 0 and len(columns) > 4)
        for place, (title, (kind, _)) in enumerate(columns.items())
    }


def draw(key: str, columns: Mapping[str, tuple[Kind, Sequence[Any]]], *, height: int = HEIGHT) -> None:
    """A table to look at."""
    with st.container(key=key):
        st.dataframe(table(columns), height=height, hide_index=True, column_config=settings(columns), placeholder="")


def pick(
    key: str,
    make: Callable[[], Mapping[str, tuple[Kind, Sequence[Any]]]],
    offer: Callable[[list[str]], None],
    *,
    several: bool = False,
    height: int = HEIGHT,
) -> None:
    """A table of which rows can be selected; `offer` draws, in a line above it, what to do with those that are.

    It is given the texts of their first column. Streamlit knows a selected row by its place only, so that new data
    would select another one: as long as a row is selected, the table stays as it was, and the line says so.
    """
    rows = _selected(key)
    held: tuple[pa.Table, dict[str, Any], str] | None = st.session_state.get(_held(key))
    if not rows or held is None:
        columns = make()
        held = table(columns), settings(columns), f"{datetime.now(zone()):%H:%M:%S}"
        st.session_state[_held(key)] = held
    shown, config, at = held
    above = st.container(horizontal=True, vertical_alignment="center")
    st.dataframe(
        shown, key=key, height=height, hide_index=True, column_config=config, placeholder="",
        on_select="rerun", selection_mode="multi-row" if several else "single-row",
    )  # fmt: skip
    with above:
        offer([shown.column(0)[row].as_py() for row in rows if row < shown.num_rows])
        if rows:
            st.button("Unselect", key=f"{key} go on", on_click=unselect, args=(key,), icon=":material/play_arrow:")
            st.caption(f"Stands still as of {at} ({plain(zone_name())}): a row is selected.")


def unselect(key: str) -> None:
    """No row of a table is selected any more, and it goes on."""
    if key in st.session_state:
        st.session_state[key] = {"selection": {"rows": [], "columns": [], "cells": []}}


def _selected(key: str) -> list[int]:
    return list(st.session_state.get(key, {}).get("selection", {}).get("rows", []))


def _held(key: str) -> str:
    return f"{key} as it was"


def _values(kind: Kind, values: Sequence[Any]) -> Sequence[Any]:
    if kind == "time":
        return [None if value is None else datetime.fromisoformat(value) for value in values]
    if factor := FACTORS.get(kind):
        return [None if value is None else factor * value for value in values]
    return values


def _setting(kind: Kind, *, pinned: bool) -> Any:
    if kind == "time":
        return st.column_config.DatetimeColumn(
            format="YYYY-MM-DD HH:mm:ss", timezone=zone_name(), help=f"time zone: {zone_name()}", pinned=pinned
        )
    if kind in WIDTHS:
        return st.column_config.TextColumn(width=WIDTHS[kind])
    if kind == "text":
        return st.column_config.TextColumn(pinned=pinned)
    return st.column_config.NumberColumn(format=FORMS.get(kind, "%.1f"), pinned=pinned)
