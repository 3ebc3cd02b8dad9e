"""What the Control page asks the log: where the rounds stand, and which training plan the next ones have."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from floe.plan import Plan
from floe.sqlite import Database

STANDING = "SELECT * FROM standing WHERE lineage = :lineage"
ORDERED = "SELECT plan FROM control WHERE lineage = :lineage AND plan != ''"
NEWEST = "SELECT plan FROM rounds WHERE lineage = :lineage ORDER BY epoch DESC, round DESC, opened_at DESC LIMIT 1"


@dataclass(frozen=True)
class Standing:
    """The aggregator's own word on where its rounds stand; see table `standing` in floe/migrations.py."""

    round: int
    task: str
    stage: str
    held: str
    last: int
    online: int
    needed: int
    quorum: int
    deadline_at: str | None
    changed_at: str

    @property
    def words(self) -> str:
        """In a sentence, without times."""
        phase = f"{self.task} {self.round} of {self.last}"
        if self.stage == "finished":
            return f"All is done: {self.round} rounds."
        if self.held:
            before = self.stage == "waiting"
            return f"{self.held.capitalize()} before {phase}." if before else f"{phase} is open, then {self.held}."
        if self.stage == "waiting":
            return f"Waiting with {phase} for {self.needed} device(s)."
        return f"{phase} is {self.stage}: {self.needed} update(s) missing."


def standing(db: Database, lineage: str) -> Standing | None:
    """None: no aggregator of this lineage has written here yet."""
    row = next(iter(db.query(STANDING, {"lineage": lineage})), None)
    return Standing(**{name: row[name] for name in Standing.__dataclass_fields__}) if row else None


def plan_in_force(db: Database, lineage: str) -> Plan | None:
    """The operator's plan, else that of the newest round; None: no round was opened yet."""
    for query in (ORDERED, NEWEST):
        if found := db.execute(query, {"lineage": lineage}).fetchone():
            return msgspec.json.decode(found[0], type=Plan)
    return None
