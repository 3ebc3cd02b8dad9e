"""The counters of refusals, by device and reason: in memory at once, in the table `refusals` at most once a second.

Rows are bounded by devices times reasons: names that no key is known for are counted together, under "".
"""

from __future__ import annotations

from sqlite_utils import Database

from floe.store import now as time_now

PAUSE_S = 1.0


class Refusals:
    """What was refused since the log began."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._new: dict[tuple[str, str], tuple[int, str, str]] = {}
        self._due = 0.0

    def count(self, device: str, reason: str) -> None:
        """One more; on disk with one of the next `flush`."""
        moment = time_now()
        count, first, _ = self._new.get((device, reason), (0, moment, ""))
        self._new[(device, reason)] = (count + 1, first, moment)

    def flush(self, now: float) -> None:
        """Write what is new, if the last time was a second ago. Raises `sqlite3.Error`: then it is tried again."""
        if not self._new or now < self._due:
            return
        self._due = now + PAUSE_S
        with self._db.atomic():
            for (device, reason), counted in self._new.items():
                self._db.execute(_ADD, (device, reason, *counted))
        self._new.clear()


_ADD = """
INSERT INTO refusals (device, reason, count, first, last) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (device, reason) DO UPDATE SET count = count + excluded.count, last = excluded.last
"""
