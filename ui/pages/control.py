"""Control: steer the rounds, the training plan, and who belongs; for reading only without an operator's key."""

from __future__ import annotations

from functools import partial

import streamlit as st

from floe.identity import present
from ui.commands import may_steer
from ui.parts import members, plan_form, steering
from ui.parts.asked import follow
from ui.parts.live import live, once
from ui.parts.text import plain
from ui.serving import config


def show() -> None:
    """Draw the page."""
    st.title("Control")
    may = _who_may()
    st.subheader("Rounds")
    live(partial(steering.draw, may_steer=may))
    st.subheader("Training plan")
    st.caption("What the next rounds are opened with; a round that is open keeps its own.")
    once(partial(plan_form.draw, may_steer=may))
    follow(plan_form.PLACE)
    if present(config().path(config().security.federation)):
        st.subheader("Who belongs")
        members.draw(may_steer=may)


def _who_may() -> bool:
    why = may_steer(config())
    if why:
        st.info(plain(f"For reading only: {why}"), icon=":material/visibility:")
    elif not config().ui.password:
        st.caption(
            "Whoever has an account on this machine can steer here, because no password is set: "
            "`floe ui --new-password` makes one."
        )
    return not why
