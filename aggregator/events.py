"""What happened, printed and recorded in the table `events`: the part of the log that nobody was promised."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from floe.service import log
from floe.sqlite import Database
from floe.store import now

REPEAT_S = 10.0  # an event like one of the last seconds is counted, not written
STRANGERS = 16  # names without a key whose events are told apart


class Events:
    """The events of one log, and the keys by which its devices are told from strangers."""

    def __init__(self, path: Path, db: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.db = db
        self._clock = clock
        self._told: dict[tuple[str, str | None, str | None], tuple[float, int]] = {}

    def key_of(self, device: str) -> str | None:
        """The key that is pinned for a device."""
        row = self.db.execute("SELECT key FROM devices WHERE device = ?", [device]).fetchone()
        return None if row is None else str(row[0])

    def event(self, level: str, kind: str, text: str, *, device: str | None = None, reason: str | None = None) -> None:
        """Print what happened, and record it; a warning like it, or the same error, is counted within ten seconds.

        Never raises: what happened has happened, and must not be done again because its record found no room.
        """
        key, moment = (kind, self._place(device), text if level == "error" else reason), self._clock()
        since, more = self._told.get(key, (-REPEAT_S, 0))
        if level != "info" and moment - since < REPEAT_S:
            self._told[key] = (since, more + 1)
            return
        if len(self._told) > 10_000:
            self._told.clear()
        self._told[key] = (moment, 0)
        text = f"{text} (and {more} more like it)" if more else text
        log(f"{level} {text}" if level != "info" else text)
        try:
            self.db.execute(_ADD, (now(), level, kind, device, reason, text[:1000]))
        except sqlite3.Error as error:
            self.complain(f"{self.path}: {error}; this event is not in the log")

    def complain(self, text: str) -> None:
        """Print what cannot be recorded, because the disk refuses; the same once in ten seconds."""
        moment = self._clock()
        since, _ = self._told.get((text, None, None), (-REPEAT_S, 0))
        if moment - since >= REPEAT_S:
            self._told[(text, None, None)] = (moment, 0)
            log(f"error {text}")

    def _place(self, device: str | None) -> str | None:
        """What events are told apart by: a device that has a key; other names, of which anybody can make up millions,
        share a few places."""
        if device is None:
            return None
        with suppress(sqlite3.Error):
            if self.key_of(device) is not None:
                return device
        return f"stranger {zlib.crc32(device.encode()) % STRANGERS}"


_ADD = "INSERT INTO events (time, level, kind, device, reason, text) VALUES (?, ?, ?, ?, ?, ?)"
