"""What the Control page asks the log: where the rounds stand, and which training plan the next ones have."""

from __future__ import annotations

import msgspec

from floe.plan import Plan
from floe.sqlite import Database
from ui.queries.standing import STANDING, Standing

ORDERED = "SELECT plan FROM control WHERE lineage = :lineage AND plan != ''"
NEWEST = "SELECT plan FROM rounds WHERE lineage = :lineage ORDER BY epoch DESC, round DESC, opened_at DESC LIMIT 1"


def standing(db: Database, lineage: str) -> Standing | None:
    """None: no aggregator of this lineage has written here yet."""
    row = next(iter(db.query(STANDING, {"lineage": lineage})), None)
    return Standing(**{name: row[name] for name in Standing.__dataclass_fields__}) if row else None


def words(now: Standing) -> str:
    """Where the rounds stand, in a sentence, without times."""
    phase = f"{now.task} {now.round} of {now.last}"
    if now.stage == "finished":
        return f"All is done: {now.round} rounds."
    if now.held:
        before = now.stage == "waiting"
        return f"{now.held.capitalize()} before {phase}." if before else f"{phase} is open, then {now.held}."
    if now.stage == "waiting":
        return f"Waiting with {phase} for {now.needed} device(s)."
    return f"{phase} is {now.stage}: {now.needed} update(s) missing."


def plan_in_force(db: Database, lineage: str) -> Plan | None:
    """The operator's plan, else that of the newest round; None: no round was opened yet."""
    for query in (ORDERED, NEWEST):
        if found := db.execute(query, {"lineage": lineage}).fetchone():
            return msgspec.json.decode(found[0], type=Plan)
    return None
