"""The frame of every page: who may see it, where one can go, and whether the federation is well."""

from __future__ import annotations

import streamlit as st

from ui.login import ask, is_let_in, offer_leaving
from ui.pages import control, data, devices, log, models, network, overview
from ui.parts import health, places
from ui.parts.live import EVERY_S, guarded
from ui.serving import config

PAGES = (
    ("Overview", overview.show, ":material/monitor_heart:"),
    ("Devices", devices.show, ":material/devices:"),
    ("Models", models.show, ":material/deployed_code:"),
    ("Network", network.show, ":material/hub:"),
    ("Log", log.show, ":material/notes:"),
    ("Data", data.show, ":material/table:"),
    ("Control", control.show, ":material/tune:"),
)


def show() -> None:
    """Draw the page that was asked for, for whoever may see it."""
    pages = [
        st.Page(show, title=title, url_path=title.lower(), icon=icon, default=title == "Overview")
        for title, show, icon in PAGES
    ]
    kept = config().ui.password
    let_in = is_let_in(kept)
    # Named to Streamlit before the password too: it forgets otherwise which page was asked for.
    page = st.navigation(pages, position="sidebar" if let_in else "hidden")
    if not let_in:
        ask(kept)
        return
    offer_leaving(kept)
    places.remember(pages)
    st.fragment(run_every=EVERY_S)(_head)()
    with guarded():
        page.run()


def _head() -> None:
    with guarded():
        health.show()
