"""Links from one page to another."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.navigation.page import StreamlitPage

PLACES = "places"


def remember(pages: Sequence[StreamlitPage]) -> None:
    """The pages that there are, for this visitor's links."""
    st.session_state[PLACES] = {page.title: page for page in pages}


def link(title: str, label: str) -> None:
    """A link to the page of that title."""
    if page := st.session_state.get(PLACES, {}).get(title):
        st.page_link(page, label=label, icon=page.icon)
