"""How the machines are: the vitals of a member, and what the broker says of itself."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ui.queries.rows import Time, made

HISTORY = """
SELECT member, time, cpu_percent, memory_percent, process_bytes, disk_percent, disk_free_bytes, sent_bytes_s,
    received_bytes_s, temperature_c, uptime_s, retries, model_sha256
FROM vitals WHERE member = :member ORDER BY id DESC LIMIT :limit
"""

BROKER = "SELECT topic, value, time FROM broker ORDER BY topic"


@dataclass(frozen=True)
class Vitals:
    """One report of a member: a device's name, or `lineage/<lineage>` for the aggregator. NULL is None: not known.

    Percent are 0..100 of the whole machine; `process_bytes` is the resident set of Floe's process; `disk_*` is the file
    system of the state folder; `sent_bytes_s`, `received_bytes_s` the machine's network since the report before;
    `retries` what was sent again since the process started; `model_sha256` the global model that the device holds.
    """

    member: str
    time: Time
    cpu_percent: float | None
    memory_percent: float | None
    process_bytes: int | None
    disk_percent: float | None
    disk_free_bytes: int | None
    sent_bytes_s: float | None
    received_bytes_s: float | None
    temperature_c: float | None
    uptime_s: float | None
    retries: int | None
    model_sha256: str | None


@dataclass(frozen=True)
class Figure:
    """One value of the broker's `$SYS`, as it came (at most 100 characters)."""

    topic: str
    value: str
    time: Time


def history(db: sqlite3.Connection, member: str, limit: int = 200) -> tuple[Vitals, ...]:
    """The vitals of one member, oldest first: the newest `limit` of them (200 are kept, or some more)."""
    rows = db.execute(HISTORY, {"member": member, "limit": limit}).fetchall()
    return tuple(made(Vitals, row) for row in reversed(rows))


def aggregator(db: sqlite3.Connection, lineage: str) -> Vitals | None:
    """The newest vitals of the aggregator itself."""
    return next(iter(history(db, f"lineage/{lineage}", 1)), None)


def broker(db: sqlite3.Connection) -> tuple[Figure, ...]:
    """What the broker says of itself, by topic."""
    return tuple(made(Figure, row) for row in db.execute(BROKER))
