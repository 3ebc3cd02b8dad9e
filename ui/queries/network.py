"""Who is linked with whom: the devices with what was heard of them last, operators, and the broker's own figures."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ui.queries.rows import Time, made
from ui.queries.vitals import Figure

HEARD = """
SELECT d.device, d.state, d.last_seen, v.time AS told
FROM devices d LEFT JOIN vitals v ON v.id = d.vitals ORDER BY d.device
"""

OPERATORS = "SELECT operator, max(last_seen) AS last_seen FROM operators GROUP BY operator ORDER BY operator"

SYS = "$SYS/broker/"
BRIDGE = f"{SYS}connection/"


@dataclass(frozen=True)
class Heard:
    """A device: `last_seen` is its newest status, `told` its newest vitals (None: never); UTC as in the log."""

    device: str
    state: str
    last_seen: Time
    told: Time | None


@dataclass(frozen=True)
class Operator:
    """Somebody who steers; `last_seen`: the newest command, UTC as in the log."""

    operator: str
    last_seen: Time


@dataclass(frozen=True)
class BrokerFigures:
    """What Mosquitto says of itself below `$SYS/broker/` (mosquitto(8), "Broker status"), as text; '': it does not.

    Per minute are means over the last minute. `heard`: the newest of all, UTC as in the log. `bridges`: by name,
    whether the connection stands; `sent` and `received` as the broker sees it.
    """

    version: str
    uptime: str
    clients: str
    received_per_min: str
    sent_per_min: str
    received_bytes_per_min: str
    sent_bytes_per_min: str
    dropped: str
    bridges: dict[str, bool]
    heard: str | None


def devices(db: sqlite3.Connection) -> tuple[Heard, ...]:
    """All devices of the log, by name."""
    return tuple(made(Heard, row) for row in db.execute(HEARD))


def operators(db: sqlite3.Connection) -> tuple[Operator, ...]:
    """All operators that ever steered, by name."""
    return tuple(made(Operator, row) for row in db.execute(OPERATORS))


def broker_figures(figures: Iterable[Figure]) -> BrokerFigures:
    """The broker's figures by their meaning."""
    found = {figure.topic: figure for figure in figures}
    values = {topic.removeprefix(SYS): figure.value for topic, figure in found.items()}
    return BrokerFigures(
        version=values.get("version", ""),
        uptime=values.get("uptime", ""),
        clients=values.get("clients/connected", ""),
        received_per_min=values.get("load/messages/received/1min", ""),
        sent_per_min=values.get("load/messages/sent/1min", ""),
        received_bytes_per_min=values.get("load/bytes/received/1min", ""),
        sent_bytes_per_min=values.get("load/bytes/sent/1min", ""),
        dropped=values.get("publish/messages/dropped", ""),
        bridges=_bridges(found),
        heard=max((figure.time for figure in found.values()), default=None),
    )


def number_of(text: str) -> float | None:
    """A figure of the broker as a number; None for one that it has not told, or that is none."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _bridges(found: Mapping[str, Figure]) -> dict[str, bool]:
    states = {topic: one.value for topic, one in found.items() if topic.startswith(BRIDGE) and topic.endswith("/state")}
    return {topic[len(BRIDGE) : -len("/state")]: value.strip() == "1" for topic, value in sorted(states.items())}
