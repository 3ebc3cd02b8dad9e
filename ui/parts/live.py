"""Parts of a page that draw themselves anew every second, from the log as it is then. The rest of the page stays.

Streamlit sends what has changed only, so nothing flickers, and scroll and selection stay where they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import streamlit as st

from floe.errors import FloeError
from floe.sqlite import Database
from floe.store import FILE, read_log
from ui.parts.text import plain
from ui.serving import config

EVERY_S = 1.0
Draw = Callable[[Database], None]


def live(draw: Draw, every_s: float | None = EVERY_S) -> None:
    """Draw now and every so many seconds; a click on what was drawn draws this part alone anew."""

    @st.fragment(run_every=every_s)
    def again() -> None:
        once(draw)

    again()


def once(draw: Draw) -> None:
    """Draw from the log; what is wrong with the log is said in its place."""
    settings = config()
    try:
        with closing(read_log(settings.path(settings.paths.log) / FILE).conn) as connection:
            draw(Database(connection))
    except (FloeError, sqlite3.Error) as error:
        st.warning(plain(str(error)))
