"""A command that a click has begun, and its answer where the click was. The page goes on while it runs."""

from __future__ import annotations

import streamlit as st

from ui.commands import JOBS, Job
from ui.parts.text import plain
from ui.serving import config

EVERY_S = 0.5


def ask(place: str, *arguments: str) -> None:
    """Begin `floe ARGUMENTS`, for a place of this visitor's page. Where another command runs it only says so."""
    job = JOBS.start(config(), *arguments)
    if job is None:
        running = JOBS.running
        st.toast(plain(f"Busy with {running.shown}: try again." if running else "Busy: try again."))
        return
    st.session_state[_key(place)] = job


def asked(place: str) -> Job | None:
    """The last command of a place, of this visitor."""
    found = st.session_state.get(_key(place))
    return found if isinstance(found, Job) else None


def answer(place: str) -> None:
    """Draw what became of the last command of a place; nothing before the first."""
    job = asked(place)
    if job is None:
        return
    if job.answer is None:
        st.info(plain(f"{job.shown}: running"))
    elif job.answer.done:
        st.success(plain(f"{job.shown}: {job.answer.said}"))
    else:
        st.error(plain(f"{job.shown}: {job.answer.said}"))


def follow(place: str, *then: str) -> None:
    """Draw the answer as soon as it is there, and then the page once more: it may show something else now.

    `then`: a place, and the arguments of the command that is asked for there when this one has ended.
    """
    job = asked(place)

    @st.fragment(run_every=EVERY_S if job is not None and job.answer is None else None)
    def again() -> None:
        answer(place)
        _end(place, *then)

    again()


def _end(place: str, *then: str) -> None:
    job, drawn = asked(place), _key(place, "drawn")
    if job is not None and job.answer is not None and st.session_state.get(drawn) is not job:
        st.session_state[drawn] = job
        if then:
            ask(*then)
        st.rerun()


def _key(place: str, what: str = "job") -> str:
    return f"{what} of {place}"
