"""The rounds on the Control page: where they stand, and the four commands of `floe round`."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import streamlit as st

from ui.commands import JOBS
from ui.parts.asked import answer, ask
from ui.parts.browser import zone, zone_name
from ui.parts.text import moment
from ui.queries.standing import Standing, standing
from ui.serving import config

PLACE, ROUNDS = "rounds", "rounds to train"


@dataclass(frozen=True)
class Action:
    """A command of `floe round`, its sign, and what it does."""

    name: str
    icon: str
    does: str


ACTIONS = (
    Action("start", ":material/play_arrow:", "Lets the rounds go on with whoever is online. After the last: anew."),
    Action("pause", ":material/pause:", "The open round goes on, no other opens."),
    Action("resume", ":material/resume:", "Takes back Pause."),
    Action("stop", ":material/stop:", "Closes the open round now, and opens no other."),
)


def makes_sense(action: str, now: Standing | None, rounds: int) -> bool:
    """Whether a command would change anything, as aggregator/steering.py answers it."""
    if now is None:
        return False
    match action:
        case "start":
            return bool(rounds or now.held) or now.stage in ("waiting", "finished")
        case "pause":
            return not now.held and now.stage != "finished"
        case "resume":
            return now.held == "paused"
    return now.held != "stopped" and now.stage != "finished"


def words(now: Standing) -> str:
    """Where the rounds stand, in a sentence, without times."""
    phase = f"{now.task} {now.round} of {now.last}"
    if now.stage == "finished":
        return f"All is done: {now.round} rounds."
    if now.held:
        before = now.stage == "waiting"
        return f"{now.held.capitalize()} before {phase}." if before else f"{phase} is open, then {now.held}."
    if now.stage == "waiting":
        return f"Waiting with {phase} for {now.needed} device(s)."
    return f"{phase} is {now.stage}: {now.needed} update(s) missing."


def draw(db: sqlite3.Connection, *, may_steer: bool) -> None:
    """Where the rounds stand, the buttons, and the answer to the last one."""
    now = standing(db, config().rounds.lineage)
    _tell(now)
    rounds = int(
        st.number_input(
            "Rounds that Start trains more (0: up to the last round as it is configured)",
            0, 1_000_000, 0, key=ROUNDS, disabled=not may_steer,
        )
    )  # fmt: skip
    busy = JOBS.running
    for column, action in zip(st.columns(len(ACTIONS)), ACTIONS, strict=True):
        with column:
            st.button(
                action.name.capitalize(),
                key=f"round {action.name}",
                icon=action.icon,
                width="stretch",
                disabled=not may_steer or busy is not None or not makes_sense(action.name, now, rounds),
                on_click=_click,
                args=(action.name,),
            )
            st.caption(action.does)
    answer(PLACE)


def _click(action: str) -> None:
    rounds = st.session_state[ROUNDS]  # as it is now: it may have been typed since the button was drawn
    ask(PLACE, "round", action, *(("--rounds", str(rounds)) if action == "start" and rounds else ()))


def _tell(now: Standing | None) -> None:
    if now is None:
        st.info("No aggregator has told yet where its rounds stand: `floe aggregator` starts one.")
        return
    st.text(words(now))
    facts = [f"{now.online} device(s) online", f"quorum {now.quorum}"]
    facts += [f"deadline {moment(now.deadline_at, zone())}"] if now.deadline_at else []
    facts += [f"since {moment(now.changed_at, zone())} ({zone_name()})"]
    st.text(", ".join(facts))
