"""How the rounds went: one row for each training round of the newest epoch, and what went wrong lately."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

# All of `rounds` that is asked for stands in the index `rounds_figures`: a row itself holds the names of all devices.
ROUNDS = """
SELECT r.round, r.accepted, r.refused, r.bytes_up, r.bytes_down, r.seconds, m.loss, m.accuracy, m.roc_auc,
    r.local_loss, r.local_accuracy, r.local_roc_auc
FROM rounds r
    LEFT JOIN models m ON (m.lineage, m.epoch, m.round) = (r.lineage, r.epoch, r.round)
WHERE r.lineage = :lineage AND r.epoch = (SELECT max(epoch) FROM federations WHERE lineage = :lineage)
    AND r.task = 'train' AND r.state = 'closed'
ORDER BY r.round
"""

WRONG = """
SELECT id, time, level, coalesce(device, '') AS device, coalesce(reason, '') AS reason, text FROM events
WHERE level != 'info' AND id > 0 ORDER BY id DESC LIMIT :limit
"""


@dataclass(frozen=True)
class Trained:
    """A training round that has closed. Bytes and seconds are of the whole round.

    `loss`, `accuracy`, `roc_auc`: of the global model that it made, measured by the devices that began with it;
    `local_...`: of the devices' own models after training. None: not measured (yet).
    """

    round: int
    accepted: int
    refused: int
    bytes_up: int
    bytes_down: int
    seconds: float | None
    loss: float | None
    accuracy: float | None
    roc_auc: float | None
    local_loss: float | None
    local_accuracy: float | None
    local_roc_auc: float | None


@dataclass(frozen=True)
class Wrong:
    """An event that is a warning or an error. `time` is UTC as in the log; device and reason are empty without one."""

    id: int
    time: str
    level: str
    device: str
    reason: str
    text: str


def trained(db: sqlite3.Connection, lineage: str) -> tuple[Trained, ...]:
    """The training rounds that have closed, in order, of the newest epoch of a lineage."""
    return tuple(Trained(*row) for row in db.execute(ROUNDS, {"lineage": lineage}))


def wrong(db: sqlite3.Connection, limit: int) -> tuple[Wrong, ...]:
    """The newest events that are not info, newest first."""
    return tuple(Wrong(*row) for row in db.execute(WRONG, {"limit": limit}))
