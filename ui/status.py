"""How the federation is, as one value, and in words: what `floe status` shows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from floe.store import now
from ui.parts.text import duration
from ui.queries import events, fleet, network, standing, vitals
from ui.queries.fleet import Device
from ui.reading import Reading
from ui.times import how_long_ago, local, seconds_since

LATELY = 8
ORDER = ("refused", "late", "offline")  # what an expected device does wrong, worst first
BAD_STATES = ("offline", "unknown")


@dataclass(frozen=True)
class Status:
    """Everything at one moment. `time` is that, UTC. `lately`: the newest entries that are warnings or worse."""

    time: str
    now: standing.Now
    devices: tuple[Device, ...]
    aggregator: vitals.Vitals | None
    lately: tuple[events.Entry, ...]
    broker: tuple[vitals.Figure, ...]

    def worst_first(self) -> list[Device]:
        """Who fails in the open round, then who is away (the last to go first), then the busiest."""
        doing = self.now.doing

        def place(device: Device) -> tuple[int, float, str]:
            wrong = doing.get(device.device, "")
            if wrong in ORDER:
                return ORDER.index(wrong), seconds_since(device.last_seen, self.time), device.device
            if device.state in BAD_STATES:
                return len(ORDER), seconds_since(device.last_seen, self.time), device.device
            return len(ORDER) + 1, -(device.cpu_percent or 0.0), device.device

        return sorted(self.devices, key=place)


def asking(lineage: str) -> Callable[[sqlite3.Connection], Status]:
    """What `ui.reading.read` is to ask for the status of a lineage."""

    def ask(db: sqlite3.Connection) -> Status:
        moment = now()
        lately = events.page(db, events.Filter("warning"), limit=LATELY).entries
        return Status(
            moment, standing.now(db, lineage, moment), fleet.devices(db), vitals.aggregator(db, lineage), lately,
            vitals.broker(db),
        )  # fmt: skip

    return ask


def as_json(reading: Reading[Status]) -> dict[str, Any]:
    """One object: times UTC as in the log, `trouble` null if the log could be read, else the rest is null."""
    status = reading.answer
    about = {
        "running": reading.running,
        "last_event": reading.last_event,
        "trouble": asdict(reading.trouble) if reading.trouble else None,
    }
    if status is None:
        unknown = ("standing", "round", "uploads", "states", "privacy", "devices", "aggregator", "lately", "broker")
        return {**about, "time": now(), **dict.fromkeys(unknown)}
    doing = status.now.doing
    return {
        **about,
        "time": status.time,
        **{name: value for name, value in asdict(status.now).items() if name != "doing"},
        "devices": [asdict(device) | {"doing": doing.get(device.device)} for device in status.worst_first()],
        "aggregator": asdict(status.aggregator) if status.aggregator else None,
        "lately": [asdict(entry) for entry in status.lately],
        "broker": {figure.topic: figure.value for figure in status.broker},
    }


def health(reading: Reading[Any], moment: str) -> str:
    """Whether the aggregator runs, and when it was last heard of; or why the log cannot be read."""
    runs = {True: "aggregator running", False: "aggregator NOT running", None: "aggregator: not known from here"}
    if reading.trouble:
        return f"{runs[reading.running]}; {reading.path}: {reading.trouble}"
    if reading.last_event is None:
        return f"{runs[reading.running]}; no event yet"
    last = reading.last_event
    return f"{runs[reading.running]}; last event {how_long_ago(last, moment)}, {local(last)}"


def round_words(status: Status) -> list[str]:
    """Where the rounds stand: lines of a name and what is to be said."""
    found, lines = status.now, []
    if (stands := found.standing) is not None:
        held = f", {stands.held}" if stands.held else ""
        lines.append(
            f"round    {stands.task} {stands.round} of {stands.last} (epoch {stands.epoch}), {stands.stage}{held}"
        )
        lines.append(f"quorum   {_needed(stands)}; {_deadline(stands, status.time)}")
    elif found.round is not None:
        lines.append(f"round    {found.round.task} {found.round.round}, {found.round.state}")
    else:
        lines.append("round    none yet")
    states = ", ".join(f"{many} {state}" for state, many in sorted(found.states.items())) or "none yet"
    lines.append(f"devices  {states}")
    if found.privacy is not None:
        lines.append(f"privacy  {found.privacy.words()}")
    if found.doing and found.round is not None and found.round.state == "open":
        doing = ", ".join(f"{many} {what}" for what, many in Counter(found.doing.values()).most_common())
        lines.append(f"expected {len(found.doing)}: {doing}")
    return lines


def broker_words(status: Status) -> str:
    """The broker in a line, as far as it tells of itself: version, clients, what goes through it; empty if nothing."""
    told = network.broker_figures(status.broker)
    rates = [
        (told.received_per_min, "{:,.0f} messages in per min"), (told.sent_per_min, "{:,.0f} out per min"),
        (told.dropped, "{:,.0f} dropped"),
    ]  # fmt: skip
    clients = [(told.clients, "{:,.0f} clients connected")]
    words = [form.format(value) for text, form in clients + rates if (value := network.number_of(text)) is not None]
    return ", ".join([told.version] * bool(told.version) + words)


def _needed(stands: standing.Standing) -> str:
    if stands.stage == "waiting":
        return f"begins with {stands.needed} devices, {stands.online} are online"
    missing = f", {stands.needed} still missing" if stands.needed and stands.stage == "open" else ""
    return f"{stands.quorum}{missing}"


def _deadline(stands: standing.Standing, moment: str) -> str:
    if stands.deadline_at is None:
        return "no deadline"
    left = -seconds_since(stands.deadline_at, moment)
    when = local(stands.deadline_at, day=False)
    return f"deadline in {duration(left)}, {when}" if left >= 0 else f"deadline over since {duration(-left)}, {when}"
