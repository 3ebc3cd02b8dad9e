"""The aggregator's events and the devices' own lines as one stream: pages into the past, and what is new.

The two tables have ids of their own. Within each the order is that of the ids, whatever the clocks did; between them
decides when the aggregator heard of it. What a device says of the time is shown, and orders nothing. A `Cursor` is a
place in both tables.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from typing import Literal

from ui.queries.rows import Time, made

WINDOW = 200_000  # rows of each table that one search looks through
JOURNAL_KIND = "journal"

# `:floor` keeps a search from walking through all: ids above it only. What a device or `events_bad` finds is few.
EVENTS = """
SELECT id, time, time AS said_at, level, kind, coalesce(device, '') AS device, coalesce(reason, '') AS reason, text
FROM events WHERE id < :before AND id > :floor AND (:kind = '' OR kind = :kind)
    AND instr(lower(text), lower(:text)) ORDER BY id DESC LIMIT :limit
"""

BAD_EVENTS = """
SELECT id, time, time AS said_at, level, kind, coalesce(device, '') AS device, coalesce(reason, '') AS reason, text
FROM events INDEXED BY events_bad WHERE level != 'info' AND id < :before AND id > :floor
    AND (:level != 'error' OR level = 'error') AND (:kind = '' OR kind = :kind)
    AND instr(lower(text), lower(:text)) ORDER BY id DESC LIMIT :limit
"""

EVENTS_OF_DEVICE = """
SELECT id, time, time AS said_at, level, kind, device, coalesce(reason, '') AS reason, text
FROM events WHERE device = :device AND id < :before AND id > :floor
    AND (:level = 'info' OR level = 'error' OR level = :level) AND (:kind = '' OR kind = :kind)
    AND instr(lower(text), lower(:text)) ORDER BY id DESC LIMIT :limit
"""

JOURNAL = """
SELECT id, time, said_at, level, 'journal' AS kind, device, '' AS reason, text FROM journal
WHERE id < :before AND id > :floor AND (:level = 'info' OR level = 'error' OR level = :level)
    AND instr(lower(text), lower(:text)) ORDER BY id DESC LIMIT :limit
"""

JOURNAL_OF_DEVICE = """
SELECT id, time, said_at, level, 'journal' AS kind, device, '' AS reason, text FROM journal
WHERE device = :device AND id < :before AND id > :floor
    AND (:level = 'info' OR level = 'error' OR level = :level)
    AND instr(lower(text), lower(:text)) ORDER BY id DESC LIMIT :limit
"""

NEW_EVENTS = """
SELECT id, time, time AS said_at, level, kind, coalesce(device, '') AS device, coalesce(reason, '') AS reason, text
FROM events WHERE id > :after AND (:device = '' OR device = :device)
    AND (:level = 'info' OR level = 'error' OR level = :level) AND (:kind = '' OR kind = :kind)
    AND instr(lower(text), lower(:text)) ORDER BY id LIMIT :limit
"""

NEW_JOURNAL = """
SELECT id, time, said_at, level, 'journal' AS kind, device, '' AS reason, text FROM journal
WHERE id > :after AND (:device = '' OR device = :device) AND (:level = 'info' OR level = 'error' OR level = :level)
    AND instr(lower(text), lower(:text)) ORDER BY id LIMIT :limit
"""

ENDS = (
    "SELECT coalesce((SELECT max(id) FROM events), 0) AS event, coalesce((SELECT max(id) FROM journal), 0) AS journal"
)

EVENT_TIME = "SELECT time FROM events WHERE id <= :id ORDER BY id DESC LIMIT 1"

JOURNAL_TIME = "SELECT time FROM journal WHERE id <= :id ORDER BY id DESC LIMIT 1"

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Entry:
    """One line. `kind` is `journal` for a device's own. `device` and `reason` are empty where there is none.

    `time` is when the aggregator recorded or heard it: the order of the stream. `said_at` is what people see: of a
    device's line when it was written by the device's own account, else `time`.
    """

    id: int
    time: Time
    said_at: Time
    level: str
    kind: str
    device: str
    reason: str
    text: str


@dataclass(frozen=True)
class Filter:
    """What to show. `level`: this bad or worse. `kind`: of event, or `journal`. `text` is found anywhere in the text;
    A to Z in either case. Empty: all."""

    level: Level = "info"
    device: str = ""
    kind: str = ""
    text: str = ""
    source: Literal["", "events", "journal"] = ""


@dataclass(frozen=True)
class Cursor:
    """A place in both tables: ids."""

    event: int
    journal: int


@dataclass(frozen=True)
class Page:
    """Entries, newest first. `next`: where the next page begins, None at the very beginning of the log. `looked_to`:
    all that is newer than this time was looked at; None: all there is.
    """

    entries: tuple[Entry, ...]
    next: Cursor | None
    looked_to: str | None


@dataclass(frozen=True)
class _Side:
    """What one table gave: all its fitting rows with an id above `floor`, newest first, none older than `horizon`."""

    rows: list[Entry]
    floor: int = 0
    horizon: str = ""

    def after(self, shown: int) -> int:
        """Where the next page begins, when so many of the rows are on this one."""
        return self.floor + 1 if shown == len(self.rows) else self.rows[shown].id + 1


ALL = Filter()


def newest(db: sqlite3.Connection) -> Cursor:
    """The ends of both tables: what comes after it is new."""
    row = db.execute(ENDS).fetchone()
    return Cursor(row["event"], row["journal"])


def page(db: sqlite3.Connection, filter_: Filter = ALL, *, before: Cursor | None = None, limit: int = 200) -> Page:
    """The newest `limit` entries, or those before a page's `next`.

    Without a device a search goes through the newest `WINDOW` rows of each table and says how far that was; the next
    page goes on from there.
    """
    end = newest(db)
    start = before or Cursor(end.event + 1, end.journal + 1)
    events = _events(db, filter_, start.event, limit)
    journal = _journal(db, filter_, start.journal, limit)
    horizon = max(events.horizon, journal.horizon)
    both = _newest_first(journal.rows, events.rows)
    shown = tuple(islice(takewhile(lambda entry: entry.time >= horizon, both), limit))
    own = sum(entry.kind == JOURNAL_KIND for entry in shown)
    place = Cursor(events.after(len(shown) - own), journal.after(own))
    if place.event <= 1 and place.journal <= 1:
        return Page(shown, None, None)
    return Page(shown, place, shown[-1].time if len(shown) == limit else horizon)


def since(
    db: sqlite3.Connection, after: Cursor, filter_: Filter = ALL, *, limit: int = 1000
) -> tuple[tuple[Entry, ...], Cursor]:
    """What is new after a cursor, oldest first, and the cursor to go on from; at most `limit` of each table.

    A log that was begun anew, so that the cursor is beyond its end, is read from its beginning.
    """
    end = newest(db)
    begun = Cursor(after.event if after.event <= end.event else 0, after.journal if after.journal <= end.journal else 0)
    asked = asdict(filter_) | {"limit": limit}
    events = _rows(db, NEW_EVENTS, asked | {"after": begun.event}) if _asks_events(filter_) else []
    journal = _rows(db, NEW_JOURNAL, asked | {"after": begun.journal}) if _asks_journal(filter_) else []
    reached = Cursor(
        events[-1].id if len(events) == limit else end.event, journal[-1].id if len(journal) == limit else end.journal
    )
    return tuple(heapq.merge(events, journal, key=lambda entry: entry.time)), reached


def with_new(new: Sequence[Entry], shown: Sequence[Entry]) -> tuple[Entry, ...]:
    """What `since` gave together with what is shown already, in the order of a page that is read now."""
    both = (*reversed(new), *shown)
    own = [entry for entry in both if entry.kind == JOURNAL_KIND]
    return tuple(_newest_first(own, [entry for entry in both if entry.kind != JOURNAL_KIND]))


def _newest_first(journal: Iterable[Entry], events: Iterable[Entry]) -> Iterator[Entry]:
    return heapq.merge(journal, events, key=lambda entry: entry.time, reverse=True)


def _asks_events(filter_: Filter) -> bool:
    return JOURNAL_KIND not in (filter_.kind, filter_.source)


def _asks_journal(filter_: Filter) -> bool:
    return filter_.kind in ("", JOURNAL_KIND) and filter_.source in ("", JOURNAL_KIND)


def _events(db: sqlite3.Connection, filter_: Filter, before: int, limit: int) -> _Side:
    if not _asks_events(filter_):
        return _Side([])
    searched = bool(filter_.kind or filter_.text or filter_.level == "error")
    if filter_.device:
        return _side(db, EVENTS_OF_DEVICE, filter_, before, 0, limit, EVENT_TIME)
    sql = EVENTS if filter_.level == "info" else BAD_EVENTS
    return _side(db, sql, filter_, before, before - 1 - WINDOW if searched else 0, limit, EVENT_TIME)


def _journal(db: sqlite3.Connection, filter_: Filter, before: int, limit: int) -> _Side:
    if not _asks_journal(filter_):
        return _Side([])
    if filter_.device:
        return _side(db, JOURNAL_OF_DEVICE, filter_, before, 0, limit, JOURNAL_TIME)
    searched = bool(filter_.text or filter_.level != "info")
    return _side(db, JOURNAL, filter_, before, before - 1 - WINDOW if searched else 0, limit, JOURNAL_TIME)


def _side(
    db: sqlite3.Connection, sql: str, filter_: Filter, before: int, floor: int, limit: int, time_of: str
) -> _Side:
    floor = max(floor, 0)
    rows = _rows(db, sql, asdict(filter_) | {"before": before, "floor": floor, "limit": limit})
    if len(rows) == limit:
        floor = rows[-1].id - 1
    below = db.execute(time_of, {"id": floor}).fetchone() if floor else None
    if below is None:
        return _Side(rows)
    return _Side(rows, floor, min([below["time"], *(row.time for row in rows)]))


def _rows(db: sqlite3.Connection, sql: str, asked: dict[str, str | int]) -> list[Entry]:
    return [made(Entry, row) for row in db.execute(sql, asked)]
