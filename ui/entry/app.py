"""What Streamlit runs for every visitor: the password, the navigation, then the page."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from ui import frame

st.set_page_config(page_title="Floe", page_icon=str(Path(__file__).with_name("floe.svg")), layout="wide")
frame.show()
