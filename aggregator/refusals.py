"""The counters of refusals, by device and reason: in memory at once, in the table `refusals` with the log's next flush.

Rows are bounded by devices times reasons: names that no key is known for are counted together, under "".
"""

from __future__ import annotations

from floe.sqlite import Database
from floe.store import now


class Refusals:
    """What was refused, and is not written yet: `new` has count, first and last time by device and reason."""

    def __init__(self) -> None:
        self.new: dict[tuple[str, str], tuple[int, str, str]] = {}

    def count(self, device: str, reason: str) -> None:
        """One more."""
        moment = now()
        count, first, _ = self.new.get((device, reason), (0, moment, ""))
        self.new[(device, reason)] = (count + 1, first, moment)

    def write(self, db: Database) -> None:
        """Add what is new to the table, in the caller's transaction."""
        for (device, reason), counted in self.new.items():
            db.execute(_ADD, (device, reason, *counted))


_ADD = """
INSERT INTO refusals (device, reason, count, first, last) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (device, reason) DO UPDATE SET count = count + excluded.count, last = excluded.last
"""
