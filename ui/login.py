"""The page's door: a password where one is set, and no more guesses than a person makes.

An address is that of the connection: what a proxy says of where a request came from (X-Forwarded-For) is not believed,
since whoever asks can say it too. So all who come through a proxy are one address, the proxy's. Guesses of all other
machines together are bounded too, for an attacker may have many addresses; more than one can use up alone, and this
machine is not among them: whoever sits here, or comes through `ssh -L`, is not kept out by guesses from elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import streamlit as st

from ui.password import matches

LET_IN, GIVEN = "let in", "password"
REST_S = 2.0  # between two guesses from one address
MOST, MINUTE_S = 100, 60.0  # guesses of all other machines together in that time
ADDRESSES = 10_000  # that are remembered at once
TOO_SOON = f"One guess in {REST_S:g} s, and {MOST} in a minute from all other machines together: try again."


class Guesses:
    """One guess from an address, then a rest; nobody waits meanwhile. An empty address is this machine.

    What a guess costs in memory is paid once at a time, of whomever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._computing = threading.Lock()
        self._rests: dict[str, float] = {}
        self._guessed: deque[float] = deque(maxlen=MOST)  # when, from elsewhere

    def try_(self, given: str, kept: str, address: str) -> bool | None:
        """Whether it is the password; None, unseen, if the address has just guessed, or too many others have."""
        with self._lock:
            now = self._clock()
            if self._rests.get(address, now) > now or (address and self._is_full(now)):
                return None
            if address:
                self._guessed.append(now)
            if len(self._rests) >= ADDRESSES:
                self._rests = {place: until for place, until in self._rests.items() if until > now}
            self._rests[address] = now + REST_S
        with self._computing:
            right = matches(given, kept)
        if right:
            self._rests.pop(address, None)
        return right

    def _is_full(self, now: float) -> bool:
        return len(self._guessed) == MOST and now - self._guessed[0] < MINUTE_S


_GUESSES = Guesses()


def is_let_in(kept: str) -> bool:
    """Whether this visitor has given the password. `kept` is its hash, empty: none."""
    return not kept or st.session_state.get(LET_IN) == kept


def ask(kept: str) -> None:
    """Draw the question."""
    st.title("Floe")
    with st.form("login", clear_on_submit=True):
        given = st.text_input("Password", type="password", key=GIVEN, autocomplete="current-password")
        if st.form_submit_button("Enter"):
            right = _GUESSES.try_(given, kept, st.context.ip_address or "")
            if right:
                st.session_state[LET_IN] = kept
                st.rerun()
            st.error("Not the password." if right is False else TOO_SOON)


def offer_leaving(kept: str) -> None:
    """Draw the way out, for who came in by a password."""
    if kept and st.sidebar.button("Log out", icon=":material/logout:"):
        st.session_state.clear()
        st.rerun()
