"""How the rounds went: one row for each round of the newest epoch."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ui.queries.rows import made

# A round is all its phases. All of `rounds` that is asked for stands in the index `rounds_figures`, in this order: a
# row itself holds the names of all devices.
ROUNDS = """
SELECT r.round, sum(iif(r.task = 'train', r.accepted, 0)), sum(iif(r.task = 'train', r.refused, 0)),
    sum(r.bytes_up), sum(r.bytes_down), sum(r.seconds), max(m.loss), max(m.accuracy), max(m.roc_auc),
    max(r.local_loss), max(r.local_accuracy), max(r.local_roc_auc)
FROM rounds r
    LEFT JOIN models m ON r.task = 'train' AND (m.lineage, m.epoch, m.round) = (r.lineage, r.epoch, r.round)
WHERE r.lineage = :lineage AND r.epoch = (SELECT max(epoch) FROM federations WHERE lineage = :lineage)
GROUP BY r.round HAVING r.round = 0 OR sum(r.task = 'train' AND r.state = 'closed')
ORDER BY r.round
"""


@dataclass(frozen=True)
class Trained:
    """A round whose training has closed, or round 0, from which training begins.

    Bytes and seconds are of all its phases together: sums for scaling, first model, training, evaluation. `accepted`,
    `refused`: updates of its training. `loss`, `accuracy`, `roc_auc`: of the global model that its training made,
    measured by the devices that began with it; `local_...`: of the devices' own models after training. None: not
    measured (yet).
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


def trained(db: sqlite3.Connection, lineage: str) -> tuple[Trained, ...]:
    """The rounds of the newest epoch of a lineage, in order, as far as their training has closed."""
    return tuple(made(Trained, row) for row in db.execute(ROUNDS, {"lineage": lineage}))
