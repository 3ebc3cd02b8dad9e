"""Reads the log for people: `read` asks its questions, and says in words where it cannot. Writes nothing.

One opening, one snapshot, one thread for each call: it may be called from whatever thread, and sees what an aggregator
that was started again, a backup that was put back or a log that was begun anew has there now.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from floe.errors import StoreError
from floe.migrations import NAME, known
from floe.service import is_running
from floe.settings import Config
from floe.store import FILE, read_log
from ui.queries.rows import Spoilt

BUSY_S = 1.0
T = TypeVar("T")
Kind = Literal["missing", "locked", "damaged", "newer", "older", "unreadable"]

MIGRATIONS = "SELECT name FROM _sqlite_migrations WHERE migration_set = :set"
TABLES = "SELECT count(*) FROM sqlite_master"
LAST_EVENT = "SELECT time FROM events ORDER BY id DESC LIMIT 1"


@dataclass(frozen=True)
class Trouble:
    """Why the log cannot be read now.

    `missing`: nobody has written one yet. `locked`: somebody holds it for himself alone. `damaged`: no database of
    Floe's, or not whole. `newer`, `older`: of another version of Floe. `unreadable`: the system does not let us.
    """

    kind: Kind
    text: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.text}; {self.way_out}"


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
    if trouble := _trouble_of_file(path):
        return Reading(path, running, trouble)
    try:
        with closing(read_log(path, timeout_s=BUSY_S).conn) as db:
            db.row_factory, db.text_factory = sqlite3.Row, _text
            db.execute("BEGIN")
            if trouble := _trouble_of_version(db):
                return Reading(path, running, trouble)
            newest = db.execute(LAST_EVENT).fetchone()
            return Reading(path, running, None, newest and newest["time"], ask(db))
    except sqlite3.Error as error:
        return Reading(path, running, _trouble_of_error(error))
    except Spoilt as error:
        return Reading(
            path, running, Trouble("damaged", f"the log has a value that Floe never writes ({error})", _MEND)
        )
    except (StoreError, OSError):  # it went away in between
        return Reading(path, running, _trouble_of_file(path) or MISSING)


def is_aggregator_running(config: Config) -> bool | None:
    """Whether the aggregator of the configured lineage runs with the state folder that is here; None: not known."""
    state = config.path(config.paths.state) / f"aggregator-{config.rounds.lineage}"
    return is_running(state) if os.access(state / "lock", os.R_OK) else None


MISSING = Trouble("missing", "there is no log yet", "`floe aggregator` writes it; [paths] log names its folder")
_RESTORE = "stop the aggregator and restore a backup, or move the log away to begin a new one; `floe check` says more"
_MEND = "stop the aggregator and restore a backup, or set it right by hand: `Data` on the page shows it as it is"
_NOT_OURS = Trouble("damaged", "this is a database, but not Floe's log", _RESTORE)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _trouble_of_file(path: Path) -> Trouble | None:
    """What can be seen without opening it."""
    try:
        mode, size = (about := path.stat()).st_mode, about.st_size
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return _unreadable(error.strerror or str(error))
    if not stat.S_ISREG(mode):
        return _unreadable("it is no file")
    wal = path.with_name(f"{path.name}-wal")
    if not size and wal.exists() and wal.stat().st_size:
        return Trouble("damaged", f"the log is empty, but {wal.name} is there", _RESTORE)
    return None if os.access(path, os.R_OK) else _unreadable("this account has no right to read it")


def _trouble_of_version(db: sqlite3.Connection) -> Trouble | None:
    try:
        applied = {row["name"] for row in db.execute(MIGRATIONS, {"set": NAME})}
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return _NOT_OURS if db.execute(TABLES).fetchone()[0] else MISSING
    if newer := sorted(applied - known()):
        text = f"the log was written by a newer Floe ({', '.join(newer)})"
        return Trouble("newer", text, "update the Floe that reads it")
    if older := sorted(known() - applied):
        text = f"the log is of an older Floe ({', '.join(older)} missing)"
        return Trouble("older", text, "the next start of `floe aggregator` brings it up to date")
    return None


def _trouble_of_error(error: sqlite3.Error) -> Trouble:
    """An error of SQLite (https://www.sqlite.org/rescode.html) in words. Raises one that is not about the file."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Trouble("locked", "another program holds the log for itself alone", "close it there, and look again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Trouble("damaged", f"the log is damaged ({error})", _RESTORE)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        return _unreadable(str(error))
    raise error


def _unreadable(why: str) -> Trouble:
    way_out = (
        "run this as the account that writes it; it must be able to read it and, as SQLite does, to write beside it"
    )
    return Trouble("unreadable", f"the log cannot be read ({why})", way_out)
