"""Whether the federation is well: the least that every page asks for, every second."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ui.queries.standing import HERE, STANDING, STATES, Standing

EPOCHS = "SELECT count(*) AS epochs FROM federations WHERE lineage = :lineage"

SIGN = "SELECT time FROM vitals WHERE member = :member ORDER BY id DESC LIMIT 1"


@dataclass(frozen=True)
class Pulse:
    """`begun`: whether an aggregator of this lineage has ever written to the log. `sign`: when it last told how it is,
    UTC as in the log. `known`, `here`: devices of the log, and those of them that are online."""

    begun: bool
    standing: Standing | None
    sign: str | None
    known: int
    here: int


def pulse(db: sqlite3.Connection, lineage: str) -> Pulse:
    """How a lineage is."""
    begun = db.execute(EPOCHS, {"lineage": lineage}).fetchone()["epochs"] > 0
    sign = db.execute(SIGN, {"member": f"lineage/{lineage}"}).fetchone()
    there = states(db)
    here = sum(count for state, count in there.items() if state in HERE)
    return Pulse(begun, standing(db, lineage), sign and sign["time"], sum(there.values()), here)


def standing(db: sqlite3.Connection, lineage: str) -> Standing | None:
    """The aggregator's own word on where the rounds of a lineage stand; None: it has said none yet."""
    row = db.execute(STANDING, {"lineage": lineage}).fetchone()
    return Standing(**{name: row[name] for name in Standing.__dataclass_fields__}) if row else None


def states(db: sqlite3.Connection) -> dict[str, int]:
    """All devices of the log, by state."""
    return {row["state"]: row["devices"] for row in db.execute(STATES)}
