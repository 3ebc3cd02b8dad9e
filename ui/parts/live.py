"""Parts of a page that draw themselves anew every second, from the log as it is then. The rest of the page stays.

Streamlit sends what has changed only, so nothing flickers, and scroll and selection stay where they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import streamlit as st

from ui.reading import read
from ui.serving import config

EVERY_S = 1.0
Draw = Callable[[sqlite3.Connection], None]


def live(draw: Draw, every_s: float | None = EVERY_S) -> None:
    """Draw now and every so many seconds; a click on what was drawn draws this part alone anew."""

    @st.fragment(run_every=every_s)
    def again() -> None:
        once(draw)

    again()


def once(draw: Draw) -> None:
    """Draw from the log, with rows by name; what is wrong with the log the page's head says (`ui.parts.health`)."""
    found = read(config(), draw)
    if found.trouble is not None:
        st.caption(f"Nothing to show: {found.trouble.text}.")
