"""How the global models have done, as the log knows it: what the stop criteria look at."""

from __future__ import annotations

from aggregator.phases import Progress
from floe.messages import Phase
from floe.settings import Rounds
from floe.sqlite import Database


def read_progress(db: Database, phase: Phase, rounds: Rounds, since: int) -> Progress:
    """The progress of a chain up to a phase that has closed: over the models made after round `since`, and before it.

    (That of the phase itself is measured by the next; the last evaluation must not take back that it was the last.)
    """
    order = "ASC" if rounds.metric == "loss" else "DESC"
    measured = (
        f"SELECT round, {rounds.metric} FROM models WHERE lineage = ? AND epoch = ? AND {rounds.metric} IS NOT NULL "  # noqa: S608 (one of three words)
        "AND (round > ? OR ? = 0) AND round < ? ORDER BY "
    )
    parameters = (phase.lineage, phase.epoch, since, since, phase.round)
    newest = db.execute(measured + "round DESC LIMIT 1", parameters).fetchone()
    if newest is None:
        return Progress()
    best = db.execute(measured + f"{rounds.metric} {order}, round LIMIT 1", parameters).fetchone()
    return Progress(newest[1], newest[0] - best[0])
