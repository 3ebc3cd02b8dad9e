"""Whether the federation is well: the least that every page asks for, every second."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ui.queries.rows import Time, made
from ui.queries.standing import HERE, Standing, standing, states

EPOCHS = "SELECT count(*) AS epochs FROM federations WHERE lineage = :lineage"

BROKER = "SELECT max(time) AS heard FROM broker"


@dataclass(frozen=True)
class Pulse:
    """`begun`: whether an aggregator of this lineage has ever written to the log. `broker_heard`: when the broker
    last said how it is, UTC as in the log; None: never. `known`, `here`: devices of the log, and those that are online.
    """

    begun: bool
    standing: Standing | None
    broker_heard: Time | None
    known: int
    here: int


def pulse(db: sqlite3.Connection, lineage: str) -> Pulse:
    """How a lineage is."""
    begun = db.execute(EPOCHS, {"lineage": lineage}).fetchone()["epochs"] > 0
    heard = db.execute(BROKER).fetchone()["heard"]
    there = states(db)
    here = sum(count for state, count in there.items() if state in HERE)
    return made(Pulse, (begun, standing(db, lineage), heard, sum(there.values()), here))
