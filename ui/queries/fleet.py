"""All devices with what an operator asks of each: how it is, what it gave, and why it missed the last round.

5,000 of them are two scans of small tables and one search by index; nothing here grows with the number of rounds.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from ui.queries.rows import Time, decoded, made

DEVICES = """
SELECT d.device, d.state, d.first_seen, d.last_seen, d.software, d.task, d.round, d.rounds, d.bytes, d.threshold,
    t.accuracy, t.samples, v.time AS vitals_at, v.cpu_percent, v.memory_percent, v.disk_percent, v.disk_free_bytes,
    v.sent_bytes_s, v.received_bytes_s, v.temperature_c, v.retries, v.model_sha256, d.epsilon, d.delta, d.accountant
FROM devices d LEFT JOIN updates t ON t.id = d.trained LEFT JOIN vitals v ON v.id = d.vitals
ORDER BY d.device
"""

DEVICE = """
SELECT d.device, d.state, d.first_seen, d.last_seen, d.software, d.task, d.round, d.rounds, d.bytes, d.threshold,
    t.accuracy, t.samples, v.time AS vitals_at, v.cpu_percent, v.memory_percent, v.disk_percent, v.disk_free_bytes,
    v.sent_bytes_s, v.received_bytes_s, v.temperature_c, v.retries, v.model_sha256, d.epsilon, d.delta, d.accountant
FROM devices d LEFT JOIN updates t ON t.id = d.trained LEFT JOIN vitals v ON v.id = d.vitals
WHERE d.device = :device
"""

LAST_TRAINED = """
SELECT epoch, round, closed_at, expected FROM rounds
WHERE lineage = :lineage AND task = 'train' AND state != 'open' ORDER BY epoch DESC, round DESC LIMIT 1
"""

ENDED = """
SELECT id, device, outcome, reason, detail, merged FROM updates
WHERE lineage = :lineage AND epoch = :epoch AND round = :round AND task = 'train'
"""

# The plus signs leave the index by device, of which there are fewer rows than of a large round.
ENDED_OF_DEVICE = """
SELECT id, device, outcome, reason, detail, merged FROM updates
WHERE device = :device AND +lineage = :lineage AND +epoch = :epoch AND +round = :round AND +task = 'train'
"""

MODELS = "SELECT sha256, round FROM models WHERE lineage = :lineage ORDER BY epoch, round"

Ending = Literal["took part", "not asked", "no answer", "late", "merged later", "rejected", "superseded"]
GONE = frozenset({"offline", "unknown", "unverified", "rejected", "revoked"})


@dataclass(frozen=True)
class Device:
    """One device. Times are UTC as in the log, percent are 0..100; None: not known.

    `task`, `round`: what it works on. `rounds`: train updates accepted. `bytes`: of all its updates. `accuracy` (0..1)
    and `samples`: of its newest accepted train update. From `vitals_at` on: its newest report; `retries` since its
    process started, `model_sha256` the global model that it holds. From `epsilon` on: what it has spent of an example's
    privacy, as it says itself.
    """

    device: str
    state: str
    first_seen: Time
    last_seen: Time
    software: str
    task: str | None
    round: int | None
    rounds: int
    bytes: int
    threshold: float | None
    accuracy: float | None
    samples: int | None
    vitals_at: Time | None
    cpu_percent: float | None
    memory_percent: float | None
    disk_percent: float | None
    disk_free_bytes: int | None
    sent_bytes_s: float | None
    received_bytes_s: float | None
    temperature_c: float | None
    retries: int | None
    model_sha256: str | None
    epsilon: float | None = None
    delta: float | None = None
    accountant: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a device's part in a round ended. `reason` and `detail` are those of its update, a device's words among them;
    `merged`: the round whose model has it, if another."""

    how: Ending
    reason: str = ""
    detail: str = ""
    merged: int | None = None


@dataclass(frozen=True)
class LastRound:
    """The newest train round that is over: whom it asked, and how it ended for those of whom an update came."""

    epoch: int
    round: int
    closed_at: str | None
    expected: frozenset[str]
    ended: dict[str, Ended]

    def of(self, device: str) -> Ended:
        """How it ended for a device."""
        silent: Ending = "no answer" if device in self.expected else "not asked"
        return self.ended.get(device, Ended(silent))


def devices(db: sqlite3.Connection) -> tuple[Device, ...]:
    """All devices of the log, by name."""
    return tuple(made(Device, row) for row in db.execute(DEVICES))


def device(db: sqlite3.Connection, name: str) -> Device | None:
    """One device; None if the log has none of that name."""
    row = db.execute(DEVICE, {"device": name}).fetchone()
    return made(Device, row) if row else None


def last_round(db: sqlite3.Connection, lineage: str, device: str | None = None) -> LastRound | None:
    """The newest train round that is over, also one that came to nothing; None before the first.

    `device`: what became of this one alone.
    """
    row = db.execute(LAST_TRAINED, {"lineage": lineage}).fetchone()
    if row is None:
        return None
    epoch, round, closed_at, expected = row
    found: dict[str, Ended] = {}
    phase = {"lineage": lineage, "epoch": epoch, "round": round, "device": device}
    rows = db.execute(ENDED_OF_DEVICE if device else ENDED, phase).fetchall()
    for _, name, *rest in sorted(tuple(row) for row in rows):
        now = ending(round, *rest)
        if name not in found or found[name].how != "took part":
            found[name] = now
    asked = decoded(expected, list[str], "rounds.expected")
    return LastRound(epoch, round, closed_at, frozenset(asked), found)


def ending(round: int, outcome: str, reason: str, detail: str, merged: int | None) -> Ended:
    """What a row of `updates` says about a device's part in its round."""
    if outcome != "accepted":
        how: Ending = "rejected" if outcome == "rejected" else "superseded" if outcome == "superseded" else "late"
        return Ended(how, reason, detail)
    return Ended("took part") if merged == round else Ended("merged later", merged=merged)


def rounds_of_models(db: sqlite3.Connection, lineage: str) -> dict[str, int]:
    """The round of each global model, by the SHA-256 of its file."""
    return dict(db.execute(MODELS, {"lineage": lineage}).fetchall())
