"""Reads the log for people: `read` asks its questions, and says in words where it cannot. Writes nothing.

One opening, one snapshot, one thread for each call: it may be called from whatever thread, and sees what an aggregator
that was started again, a backup that was put back or a log that was begun anew has there now.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from floe.errors import StoreError
from floe.service import is_running
from floe.settings import Config
from floe.store import FILE, read_log
from floe.trouble import MISSING, Trouble, trouble_of_error, trouble_of_file, trouble_of_version
from ui.queries.rows import Spoilt

BUSY_S = 1.0
T = TypeVar("T")

MEND = "stop the aggregator and restore a backup, or set it right by hand: `Data` on the page shows it as it is"
LAST_EVENT = "SELECT time FROM events ORDER BY id DESC LIMIT 1"


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What was found at one moment. `answer` is there when there is no `trouble`.

    `running`: whether the aggregator of this lineage runs here; None: that cannot be told, its state folder is
    elsewhere or not ours. `last_event`: time of the newest event, UTC as in the log; None: there is none.
    """

    path: Path
    running: bool | None
    trouble: Trouble | None = None
    last_event: str | None = None
    answer: T | None = None

    def checked(self) -> T:
        """The answer. Raises `StoreError` with the trouble."""
        if self.trouble is not None or self.answer is None:
            raise StoreError(f"{self.path}: {self.trouble}")
        return self.answer


def read(config: Config, ask: Callable[[sqlite3.Connection], T]) -> Reading[T]:
    """Ask the log of a configuration; `ask` is called with a connection that is open while it runs, rows by name.

    All that it reads is of one moment. What is wrong with the file, or with a value in it (`Spoilt`), is in the
    reading; other errors of SQL are raised. Bytes that are no UTF-8 are read as U+FFFD.
    """
    path, running = config.path(config.paths.log) / FILE, is_aggregator_running(config)
    if trouble := trouble_of_file(path):
        return Reading(path, running, trouble)
    try:
        with closing(read_log(path, timeout_s=BUSY_S).conn) as db:
            db.row_factory, db.text_factory = sqlite3.Row, _text
            db.execute("BEGIN")
            if trouble := trouble_of_version(db):
                return Reading(path, running, trouble)
            newest = db.execute(LAST_EVENT).fetchone()
            return Reading(path, running, None, newest and newest["time"], ask(db))
    except sqlite3.Error as error:
        return Reading(path, running, trouble_of_error(error))
    except Spoilt as error:
        return Reading(path, running, Trouble("damaged", f"the log has a value that Floe never writes ({error})", MEND))
    except (StoreError, OSError):  # it went away in between
        return Reading(path, running, trouble_of_file(path) or MISSING)


def is_aggregator_running(config: Config) -> bool | None:
    """Whether the aggregator of the configured lineage runs with the state folder that is here; None: not known."""
    state = config.path(config.paths.state) / f"aggregator-{config.rounds.lineage}"
    return is_running(state) if os.access(state / "lock", os.R_OK) else None


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
