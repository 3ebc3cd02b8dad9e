"""Devices: all of them in one table; a selected one leads to its own page, ?device=NAME."""

from __future__ import annotations

import sqlite3

import streamlit as st

from ui.pages import device
from ui.parts import fleet, grid
from ui.parts.browser import zone, zone_name
from ui.parts.live import live
from ui.parts.text import moment, plain
from ui.parts.words import STATES, in_order
from ui.queries import fleet as queries
from ui.queries.standing import states
from ui.serving import config

TABLE, STATE, TEXT = "devices", "devices in state", "devices with text"


def show() -> None:
    """Draw the page."""
    if name := st.query_params.get(device.PARAMETER):
        device.show(name)
        return
    st.title("Devices")
    wide, narrow = st.columns([2, 3])
    wide.text_input("Search", key=TEXT, placeholder="name or software", on_change=grid.unselect, args=(TABLE,))
    narrow.pills(
        "State", STATES, selection_mode="multi", key=STATE, on_change=grid.unselect, args=(TABLE,), wrap=True,
        help="none chosen: all",
    )  # fmt: skip
    live(_draw)


def _draw(db: sqlite3.Connection) -> None:
    counts = in_order(states(db))
    if not counts:
        st.info("No device yet. `floe invite` makes a code, with which a device joins; `floe client` is the device.")
        return
    told = ", ".join(f"{count:,} {plain(state)}" for state, count in counts.items())
    last = queries.last_round(db, config().rounds.lineage)
    st.text(f"{sum(counts.values()):,} devices: {told}")
    _say_round(last)
    grid.pick(TABLE, lambda: _columns(db, last), _offer, height=560)


def _columns(db: sqlite3.Connection, last: queries.LastRound | None) -> fleet.Columns:
    shown = fleet.found(queries.devices(db), st.session_state.get(STATE) or (), st.session_state.get(TEXT) or "")
    return fleet.columns(shown, last, queries.rounds_of_models(db, config().rounds.lineage), zone())


def _say_round(last: queries.LastRound | None) -> None:
    told = f"Times: {zone_name()}. Figures of a machine are of its newest report, percent are of all of it. "
    if last is None:
        st.caption(plain(told + "No train round is over yet."))
        return
    closed = moment(last.closed_at, zone())
    st.caption(plain(f"{told}Train round {last.round}, closed {closed}, asked {len(last.expected):,} devices."))


def _offer(chosen: list[str]) -> None:
    """A button in either case, so that nothing below it moves."""
    label = f"Open {plain(chosen[0])}" if chosen else "Select a row to open its page"
    if st.button(label, key="open device", icon=":material/open_in_full:", disabled=not chosen, type="primary"):
        st.query_params[device.PARAMETER] = chosen[0]
        st.rerun()
