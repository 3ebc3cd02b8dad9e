"""Parts of a page that draw themselves anew every second, from the log as it is then. The rest of the page stays.

Streamlit sends what has changed only, so nothing flickers, and scroll and selection stay where they are.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from floe.service import log
from ui.parts.text import plain
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
    with guarded():
        found = read(config(), draw)
        if found.trouble is not None:
            st.caption(plain(f"Nothing to show: {found.trouble.text}."))


@contextmanager
def guarded() -> Iterator[None]:
    """The last resort: what nobody foresaw is said in the place of this part, and once to stderr; the others stay."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error}"[:300]
        told = f"a part of the page cannot be shown ({what}; {place.name}, line {place.lineno})"
        if told not in _told:
            _told.add(told)
            log(f"{told}; a defect of Floe's: please report it, with what `floe diag` writes")
        st.error(f"{DEFECT}: {plain(what)}")


DEFECT = "This part cannot be shown, by a defect of Floe's"
_told: set[str] = set()
