"""Overview: the newest figures, the round that is open, how it went so far, and what went wrong lately."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

import streamlit as st

from floe.store import now
from ui.parts import charts, places, words
from ui.parts.browser import zone
from ui.parts.figures import figures
from ui.parts.health import countdown, seconds_to
from ui.parts.live import live
from ui.parts.text import NOTHING, moment, number, plain, share, size
from ui.queries import events, standing
from ui.queries import progress as by_round
from ui.queries.progress import Trained
from ui.serving import config

FEDERATED, LOCAL = "global model", "devices' own models"
UP, DOWN = "up, from the devices", "down, to the devices"
LATELY = 50  # lines
GROUPS_HEIGHT = 35 * (len(words.DOING) + 1) + 2  # pixels: a row each, and the head
TASKS = {
    "sums": "sums for scaling",
    "init": "first model",
    "train": "training",
    "threshold": "agreeing on a threshold",
    "evaluate": "evaluation",
}
METRICS: tuple[tuple[str, str, str], ...] = (
    ("loss", "loss", ".4~g"),
    ("accuracy", "accuracy", ".1~%"),
    ("roc_auc", "ROC-AUC (0 to 1)", ".3f"),
)


def show() -> None:
    """Draw the page."""
    st.title("Overview")
    live(_now)
    live(_history)
    live(_wrong)


def _now(db: sqlite3.Connection) -> None:
    lineage = config().rounds.lineage
    at = standing.now(db, lineage, now())
    _figures(at, by_round.trained(db, lineage))
    _round(at)


def _figures(at: standing.Now, rounds: tuple[Trained, ...]) -> None:
    measured = next((one for one in reversed(rounds) if one.loss is not None or one.accuracy is not None), None)
    of = f" (round {measured.round:,})" if measured else ""
    online = sum(count for state, count in at.states.items() if state in standing.HERE)
    last = rounds[-1] if rounds else None
    shown = (
        round_words(at),
        (f"Accuracy{of}", share(measured.accuracy if measured else None)),
        (f"ROC-AUC{of}", number(measured.roc_auc if measured else None)),
        (f"Loss{of}", number(measured.loss if measured else None)),
        (f"Online (of {sum(at.states.values()):,})", f"{online:,}"),
        (f"Bytes of round {last.round:,}" if last else "Bytes of a round", _bytes(last)),
        *((privacy_words(at.privacy),) if at.privacy else ()),
    )
    figures(shown, "figures")


def privacy_words(spent: standing.Privacy) -> tuple[str, str]:
    """Of what, by whom and at which delta, and how much, rounded up: Epsilon (example, delta 1e-05, rdp), 1.23"""
    number_, unit = spent.words().removeprefix("epsilon ").split(" ", 1)
    return f"Epsilon {unit}", number_


def round_words(at: standing.Now) -> tuple[str, str]:
    """Which round of how many: Round (of 30), 12"""
    last = at.standing.last if at.standing else config().rounds.count
    newest = at.round.round if at.round else 0
    return f"Round (of {max(last, newest):,})", f"{newest:,}" if at.round else NOTHING


def _bytes(one: Trained | None) -> str:
    return size(one.bytes_up + one.bytes_down) if one else NOTHING


def _round(at: standing.Now) -> None:
    if at.round is None:
        st.subheader("No round yet")
    else:
        st.subheader(f"Round {at.round.round:,}: {TASKS.get(at.round.task, plain(at.round.task))}")
    done = sum(what == "done" for what in at.doing.values())
    text, part = progress(at, done, datetime.now(UTC))
    st.progress(part, text)
    left, right = st.columns([2, 1])
    with left:
        _groups(at)
        places.link("Devices", "All devices")
    with right:
        charts.bars("by state", words.in_order(at.states), x="devices by state", height=GROUPS_HEIGHT)


def _groups(at: standing.Now) -> None:
    with st.container(key="groups"):
        st.dataframe(
            words.groups(at.doing, at.uploads),
            hide_index=True,
            height=GROUPS_HEIGHT,
            column_config={
                "doing": st.column_config.TextColumn("What", width=110),
                "devices": st.column_config.NumberColumn("Devices", width=80, format="localized"),
                "names": st.column_config.TextColumn("Which", width="large"),
            },
        )


def progress(at: standing.Now, done: int, moment_: datetime) -> tuple[str, float]:
    """The open round in a sentence, and how much of its quorum is there, 0 to 1."""
    if at.round is None:
        return "No round has been opened yet.", 0.0
    text, stands = f"{done:,} of {len(at.round.expected):,} devices are done", at.standing
    if at.round.state != "open":
        return f"{text}; the round is {plain(at.round.state)}.", 1.0
    if stands is None or not at.round.is_of(stands):
        return f"{text}; the round has just opened.", 0.0
    missing = max(stands.quorum - done, 0)
    text += f"; quorum {stands.quorum:,}, {f'{missing:,} missing' if missing else 'reached'}"
    if stands.deadline_at:
        left = seconds_to(stands.deadline_at, moment_)
        text += f"; deadline in {countdown(left)}" if left >= 0 else f"; the deadline was {countdown(-left)} ago"
    return f"{text}.", min(done / stands.quorum, 1.0) if stands.quorum else 0.0


def _history(db: sqlite3.Connection) -> None:
    rounds = by_round.trained(db, config().rounds.lineage)
    _learning(rounds)
    _cost(rounds)


def _learning(rounds: tuple[Trained, ...]) -> None:
    st.subheader("How it learns")
    for column, (name, title, form) in zip(st.columns(3), METRICS, strict=True):
        federated = [(one.round, getattr(one, name)) for one in rounds]
        local = [(one.round, getattr(one, f"local_{name}")) for one in rounds]
        series = {FEDERATED: federated, LOCAL: local}
        with column.container(height=charts.HEIGHT + 16, border=False, key=f"chart {name}"):
            if not charts.lines(f"by round {name}", series, x="round", y=title, form=form):
                st.caption(f"{title}: no value yet")


def _cost(rounds: tuple[Trained, ...]) -> None:
    st.subheader("What it costs")
    bytes_ = {UP: _by_round(rounds, lambda one: one.bytes_up), DOWN: _by_round(rounds, lambda one: one.bytes_down)}
    seconds = {"all its phases": _by_round(rounds, lambda one: one.seconds)}
    left, right = st.columns(2)
    with left.container(height=charts.HEIGHT + 16, border=False, key="chart bytes"):
        if not charts.lines("by round bytes", bytes_, x="round", y="bytes of a round", form=".3~s", unit="B"):
            st.caption("bytes: no round has closed yet")
    with right.container(height=charts.HEIGHT + 16, border=False, key="chart seconds"):
        if not charts.lines("by round seconds", seconds, x="round", y="seconds of a round", form=".3~g", unit=" s"):
            st.caption("seconds: no round has closed yet")


def _by_round(rounds: tuple[Trained, ...], of: Callable[[Trained], float | None]) -> list[tuple[float, float | None]]:
    return [(one.round, of(one)) for one in rounds]


def _wrong(db: sqlite3.Connection) -> None:
    """Of the aggregator's events and of the devices' own lines, as `floe status` and the page Log have them."""
    found, where = events.page(db, events.Filter("warning"), limit=LATELY), zone()
    st.subheader("What went wrong lately")
    columns = {
        "Time": [moment(one.time, where) for one in found.entries],
        "Level": [words.level(one.level) for one in found.entries],
        "Device": [one.device for one in found.entries],
        "Kind": [one.kind for one in found.entries],
        "Reason": [one.reason for one in found.entries],
        "What": [one.text for one in found.entries],
    }
    with st.container(key="wrong"):
        st.dataframe(columns, hide_index=True, height=charts.HEIGHT)
    st.caption(plain(wrong_words(found, where)))
    places.link("Log", "All events")


def wrong_words(found: events.Page, zone: tzinfo) -> str:
    """What the table of warnings and errors shows; where it is empty, how far back that is known."""
    if found.entries:
        return "Warnings and errors of the aggregator, and of the devices (kind: journal), newest first."
    if found.looked_to:
        return f"Nothing: no warning and no error since {moment(found.looked_to, zone)}; older lines: page Log."
    return "Nothing: no warning and no error in the log."
