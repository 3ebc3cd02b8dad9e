"""The devices in short, a row each: what `floe status` shows."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

DEVICES = """
SELECT d.device, d.state, d.last_seen, d.rounds, t.accuracy, v.cpu_percent, v.memory_percent, v.temperature_c
FROM devices d LEFT JOIN updates t ON t.id = d.trained LEFT JOIN vitals v ON v.id = d.vitals
ORDER BY d.device
"""


@dataclass(frozen=True)
class Device:
    """`rounds`: train updates accepted. `accuracy`: its own model's on its own test data, of the newest of those. The
    rest is of its newest vitals: percent of the machine, degrees Celsius."""

    device: str
    state: str
    last_seen: str
    rounds: int
    accuracy: float | None
    cpu_percent: float | None
    memory_percent: float | None
    temperature_c: float | None


def devices(db: sqlite3.Connection) -> tuple[Device, ...]:
    """All devices of the log, by name."""
    return tuple(Device(*row) for row in db.execute(DEVICES))
