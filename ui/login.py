"""The page's door: a password where one is set, and no more guesses than a person makes."""

from __future__ import annotations

import threading
import time

import streamlit as st

from ui.password import matches

LET_IN = "let in"
REST_S = 2.0  # between two guesses, of whomever
_one_at_a_time = threading.Lock()


def is_let_in(kept: str) -> bool:
    """Whether this visitor has given the password; draws the question otherwise. `kept` is its hash, empty: none."""
    if not kept or st.session_state.get(LET_IN) == kept:
        return True
    st.title("Floe")
    with st.form("login"):
        given = st.text_input("Password", type="password")
        if st.form_submit_button("Enter"):
            if _guess(given, kept):
                st.session_state[LET_IN] = kept
                st.rerun()
            st.error("Not the password.")
    return False


def _guess(given: str, kept: str) -> bool:
    with _one_at_a_time:
        right = matches(given, kept)
        if not right:
            time.sleep(REST_S)
        return right
