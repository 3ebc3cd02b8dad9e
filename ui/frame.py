"""The frame of every page: who may see it, where one can go, and whether the federation is well."""

from __future__ import annotations

import streamlit as st

from ui.login import is_let_in, offer_leaving
from ui.pages import control, data, devices, log, models, network, overview
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
    if not is_let_in(config().ui.password):
        return
    pages = [
        st.Page(show, title=title, url_path=title.lower(), icon=icon, default=title == "Overview")
        for title, show, icon in PAGES
    ]
    page = st.navigation(pages)
    offer_leaving(config().ui.password)
    page.run()
