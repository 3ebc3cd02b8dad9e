"""Log: the aggregator's events and the devices' own lines as they come, newest first.

The lines stand still while one of them is selected, and on older pages: Streamlit tells a selection by its place.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from ui.parts import words
from ui.parts.browser import zone
from ui.parts.live import live, once
from ui.parts.text import moment
from ui.queries import events
from ui.queries.events import Cursor, Entry, Filter, Page

LINES = 200  # of a page
MOST = 3 * LINES  # that are shown at once, when many came since
HEIGHT, DETAIL_HEIGHT = 560, 220
LEVELS = {"All levels": "info", "▲ warnings and ✖ errors": "warning", "✖ errors only": "error"}
SOURCES = {"All sources": "", "Events of the aggregator": "events", "Lines of the devices": "journal"}
NAMES = "SELECT device FROM devices ORDER BY device"
SHOWN, PAGES, TURN = "log shown", "log pages", "log turn"


@dataclass(frozen=True)
class Shown:
    """What stands on the page. `pages`: the places at which the pages up to this one begin; `end`: of the log, then."""

    filter: Filter
    pages: tuple[Cursor, ...]
    page: Page
    end: Cursor


def show() -> None:
    """Draw the page."""
    st.title("Log")
    once(_filters)
    live(_lines)


def _filters(db: sqlite3.Connection) -> None:
    level, source, device, text = st.columns(4)
    level.selectbox("Level", LEVELS, key="log level", on_change=_turn)
    source.selectbox("Source", SOURCES, key="log source", on_change=_turn)
    names = [row["device"] for row in db.execute(NAMES)]
    device.selectbox(
        "Device",
        names,
        index=None,
        placeholder="All devices",
        key="log device",
        on_change=_turn,
        accept_new_options=True,
    )
    text.text_input("Text", placeholder="anywhere in a line", key="log text", on_change=_turn)


def _filter() -> Filter:
    state = st.session_state
    return Filter(
        level=LEVELS.get(state.get("log level", ""), "info"),  # type: ignore[arg-type]
        source=SOURCES.get(state.get("log source", ""), ""),  # type: ignore[arg-type]
        device=state.get("log device") or "",
        text=state.get("log text") or "",
    )


def _turn(pages: tuple[Cursor, ...] = ()) -> None:
    """Go to a page: nothing is selected there yet."""
    st.session_state[PAGES] = pages
    st.session_state[TURN] = st.session_state.get(TURN, 0) + 1


def _lines(db: sqlite3.Connection) -> None:
    key = f"log lines {st.session_state.get(TURN, 0)}"
    selected = st.session_state.get(key, {}).get("selection", {}).get("rows", [])
    shown = _shown(db, held=bool(selected))
    st.session_state[SHOWN] = shown
    _steps(shown, bool(selected), _newer(db, shown))
    st.dataframe(
        _columns(shown.page.entries),
        key=key,
        hide_index=True,
        height=HEIGHT,
        on_select="rerun",
        selection_mode="single-row",
        column_config={"What": st.column_config.TextColumn(width="large")},
    )
    with st.container(height=DETAIL_HEIGHT, key="log detail"):
        _detail([shown.page.entries[n] for n in selected if n < len(shown.page.entries)])


def _shown(db: sqlite3.Connection, held: bool) -> Shown:
    """What to show now: what was there, with what came since, unless it is held or another page is asked for."""
    asked, pages = _filter(), st.session_state.get(PAGES, ())
    before: Shown | None = st.session_state.get(SHOWN)
    if before is None or (before.filter, before.pages) != (asked, pages):
        return _afresh(db, asked, pages)
    if held or pages:
        return before
    return _with_new(db, before)


def _afresh(db: sqlite3.Connection, asked: Filter, pages: tuple[Cursor, ...]) -> Shown:
    end = events.newest(db)
    return Shown(asked, pages, events.page(db, asked, before=pages[-1] if pages else None, limit=LINES), end)


def _with_new(db: sqlite3.Connection, before: Shown) -> Shown:
    end = events.newest(db)
    if end == before.end:
        return before
    if end.event < before.end.event or end.journal < before.end.journal:  # a log that was begun anew
        return _afresh(db, before.filter, ())
    new, reached = events.since(db, before.end, before.filter)
    entries = events.with_new(new, before.page.entries)
    if len(entries) > MOST:
        return _afresh(db, before.filter, ())
    return replace(before, page=replace(before.page, entries=entries), end=reached)


def _newer(db: sqlite3.Connection, shown: Shown) -> int:
    """How many lines the log has that came after what is shown."""
    end = events.newest(db)
    return max(end.event - shown.end.event, 0) + max(end.journal - shown.end.journal, 0)


def _steps(shown: Shown, selected: bool, newer: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="log steps"):
        st.button(
            "Newest",
            key="log newest",
            icon=":material/first_page:",
            on_click=_turn,
            disabled=not (shown.pages or selected),
        )
        st.button(
            "Newer",
            key="log newer",
            icon=":material/chevron_left:",
            on_click=_turn,
            args=(shown.pages[:-1],),
            disabled=not shown.pages,
        )
        older: tuple[Any, ...] = ((*shown.pages, shown.page.next),)
        st.button(
            "Older",
            key="log older",
            icon=":material/chevron_right:",
            on_click=_turn,
            args=older,
            disabled=shown.page.next is None,
        )
        st.text(_said(shown, selected, newer))


def _said(shown: Shown, selected: bool, newer: int) -> str:
    count = f"{len(shown.page.entries):,} lines"
    if selected:
        return f"{count}, held while a line is selected; the log has {newer:,} newer ones"
    if shown.pages:
        return f"{count}, page {len(shown.pages) + 1}; the log has {newer:,} newer ones"
    looked = shown.page.looked_to
    return f"{count}, live" + (f"; looked back to {moment(looked, zone())}" if looked else "; that is all")


def _columns(entries: tuple[Entry, ...]) -> dict[str, list[str]]:
    where = zone()
    return {
        "Time": [moment(one.said_at, where) for one in entries],
        "Level": [words.level(one.level) for one in entries],
        "Device": [one.device for one in entries],
        "What": [one.text for one in entries],
        "Kind": [one.kind for one in entries],
        "Reason": [one.reason for one in entries],
    }


def _detail(chosen: list[Entry]) -> None:
    if not chosen:
        st.caption("Select a line, and the whole of it stands here.")
    for one in chosen:
        st.text(f"{moment(one.said_at, zone())}  {words.level(one.level)}  {one.kind}  {one.device}  {one.reason}")
        st.code(one.text, language=None, wrap_lines=True)
