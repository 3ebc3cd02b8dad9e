"""A handful of figures beside each other: as many in a row as there is room for, two on a phone."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

WIDTH = 160  # pixels


def figures(words: Iterable[tuple[str, str]], key: str) -> None:
    """Draw labels, which say of what and in which unit, with their values."""
    with st.container(horizontal=True, key=key):
        for label, value in words:
            st.metric(label, value, width=WIDTH)
