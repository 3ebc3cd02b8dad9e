"""Tables `vitals` and `journal`: what members tell of themselves is added, and the oldest of each goes.

A member's rows are counted now and then, not for every report: a process counts with the first report that it hears of
a member, and then whenever `SLACK` more have come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from aggregator.waiting import Heard
from floe.sqlite import Database
from floe.store import before
from floe.telemetry import Vitals

KEPT = {"vitals": 200, "journal": 500}  # rows of a member
SLACK = {"vitals": 50, "journal": 100}  # there are never so many more of them
_MEMBER = {"vitals": "member", "journal": "device"}


class Kept:
    """Writes in its caller's transaction; where that fails, begin with a new one."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._grown: dict[str, dict[str, int]] = {"vitals": {}, "journal": {}}  # rows since the others were counted

    def add(self, heard: Sequence[Heard]) -> None:
        """Reports of devices, oldest first."""
        first = self.sample([(one.device, one.time, one.told) for one in heard])
        self._db.conn.executemany(
            _NEWEST, [(row, one.seq, one.device, one.key) for row, one in enumerate(heard, first)]
        )
        lines = [line for one in heard for line in _lines_of(one)]
        self._db.conn.executemany(_LINE, lines)
        self._grow("journal", (line[0] for line in lines))

    def sample(self, rows: Sequence[tuple[str, str, Vitals]]) -> int:
        """Vitals, each with its member and time; the id of the first row, the others follow."""
        first = int(self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM vitals").fetchone()[0])
        self._db.conn.executemany(
            _VITALS,
            [
                (number, member, time, *(getattr(vitals, name) for name in Vitals.__struct_fields__))
                for number, (member, time, vitals) in enumerate(rows, first)
            ],
        )
        self._grow("vitals", (member for member, _, _ in rows))
        return first

    def _grow(self, table: str, members: Iterable[str]) -> None:
        grown = self._grown[table]
        for member, count in Counter(members).items():
            grown[member] = grown.get(member, SLACK[table]) + count
            if grown[member] >= SLACK[table]:
                self._db.execute(PRUNE.format(table, _MEMBER[table]), (member, member, KEPT[table]))
                grown[member] = 0


def _lines_of(one: Heard) -> Iterable[tuple[str, ...]]:
    if one.told.dropped:
        yield one.device, one.time, one.time, "info", f"{one.told.dropped} lines before this found no place"
    for line in one.told.lines:
        yield one.device, one.time, before(one.time, line.age_s), line.level, " ".join(line.text.split())


_VITALS = (
    f"INSERT INTO vitals (id, member, time, {', '.join(Vitals.__struct_fields__)}) "  # noqa: S608 (names of ours)
    f"VALUES (?, ?, ?{', ?' * len(Vitals.__struct_fields__)})"
)
_NEWEST = "UPDATE devices SET vitals = ?, telemetry_seq = ? WHERE device = ? AND key = ?"
_LINE = "INSERT INTO journal (device, time, said_at, level, text) VALUES (?, ?, ?, ?, ?)"
PRUNE = """
DELETE FROM {0} WHERE {1} = ? AND id <= (SELECT id FROM {0} WHERE {1} = ? ORDER BY id DESC LIMIT 1 OFFSET ?)
"""
