"""Whether the federation is well, in a word, a symbol and a sentence. Pure, but for `show`, which draws it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import streamlit as st

from floe.trouble import Trouble
from ui.parts.browser import zone_name
from ui.parts.text import ago, duration, plain
from ui.queries.pulse import Pulse, pulse
from ui.queries.standing import Standing
from ui.reading import Reading, read
from ui.serving import config

SILENT_S = 60.0  # an aggregator writes how it stands every 10 s, and what the broker says of itself
Tone = Literal["good", "note", "warning", "bad"]
TROUBLE = {"missing": "Nothing yet", "locked": "Locked", "damaged": "Damaged", "newer": "Newer", "older": "Older"}
DRAWN = {
    "good": (st.success, ":material/check_circle:"),
    "note": (st.info, ":material/info:"),
    "warning": (st.warning, ":material/warning:"),
    "bad": (st.error, ":material/error:"),
}


@dataclass(frozen=True)
class Health:
    """`word` says it all; `text` says what of, and what to do."""

    tone: Tone
    word: str
    text: str


def show() -> None:
    """Draw how the federation is now, and the zone of all times."""
    lineage = config().rounds.lineage
    found = health(read(config(), lambda db: pulse(db, lineage)), datetime.now(UTC))
    draw, icon = DRAWN[found.tone]
    draw(f"**{found.word}** · {plain(found.text)} · times in {plain(zone_name())}", icon=icon)


def health(found: Reading[Pulse], now: datetime) -> Health:
    """What to say of a log that was read just `now`."""
    if found.trouble is not None or found.answer is None:
        return _of_trouble(found)
    pulse = found.answer
    last = f"last event {ago(found.last_event, now)}" if found.last_event else "no event yet"
    if not pulse.begun:
        return Health("note", "Nothing yet", f"the aggregator has not begun; {last}")
    if pulse.standing and pulse.standing.stage == "finished" and not pulse.standing.held:
        runs = "the aggregator waits for an operator" if found.running else "the aggregator is not running"
        return Health("note", "Finished", f"{_rounds(pulse.standing)}; {runs}; {last}")
    if found.running is False:
        return Health("bad", "The aggregator is not running", last)
    if silent := _silent(found, now):
        return Health("warning", "Silent", f"{silent}; {last}")
    return _of_standing(pulse, now, last)


def countdown(seconds: float) -> str:
    """Seconds to go, to the second: 9 min 41 s"""
    whole = max(int(seconds), 0)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def seconds_to(time: str, now: datetime) -> float:
    """From now to a time of the log, in seconds; negative when it is over."""
    return (datetime.fromisoformat(time) - now).total_seconds()


def _of_trouble(found: Reading[Pulse]) -> Health:
    trouble = found.trouble or Trouble("unreadable", "nothing was answered", "look again")
    tone: Tone = "note" if trouble.kind == "missing" else "bad" if trouble.kind == "damaged" else "warning"
    runs = "" if found.running is not False else "; the aggregator is not running"
    return Health(tone, TROUBLE.get(trouble.kind, "Unreadable"), f"{trouble} ({found.path}){runs}")


def _of_standing(pulse: Pulse, now: datetime, last: str) -> Health:
    at, devices = pulse.standing, f"{pulse.here:,} of {pulse.known:,} devices online"
    if at is None:
        return Health("good", "Healthy", f"{devices}; {last}")
    if at.held == "paused":
        return Health("note", "Paused", f"{_rounds(at)}; no round opens until it is resumed; {devices}")
    if at.held == "stopped":
        return Health("note", "Stopped", f"{_rounds(at)}; no round opens until it is started; {devices}")
    if at.stage == "waiting":
        missing = at.needed > at.online
        text = f"{_rounds(at)}; {at.online:,} of {at.needed:,} devices that it needs are online; {last}"
        return Health("warning" if missing else "good", "Waiting for devices" if missing else "Healthy", text)
    over = -seconds_to(at.deadline_at, now) if at.deadline_at else 0.0
    if at.stage == "open" and over > 0 and at.needed:
        return Health(
            "warning", "Late", f"{_rounds(at)}: {at.needed:,} updates missing {duration(over)} after the deadline"
        )
    return Health("good", "Healthy", f"{_rounds(at)}; {devices}; {last}")


def _rounds(at: Standing) -> str:
    return f"round {at.round:,} of {max(at.last, at.round):,}"


def _silent(found: Reading[Pulse], now: datetime) -> str:
    """Who has said nothing for too long, in words."""
    pulse = found.answer
    if pulse is None or pulse.standing is None:
        return ""
    quiet = -seconds_to(pulse.standing.seen_at, now)
    if quiet > SILENT_S:
        runs = "runs, but" if found.running else "runs elsewhere, or not at all:"
        return f"the aggregator {runs} it has written nothing for {duration(quiet)}"
    quiet = -seconds_to(pulse.broker_heard, now) if pulse.broker_heard else 0.0
    return f"nothing was heard of the broker for {duration(quiet)}" if quiet > SILENT_S else ""
