"""What is wrong with the log, `floe.sqlite`, in words, and the way out: for all who read it. Changes nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from floe.migrations import NAME, known

Kind = Literal["missing", "locked", "damaged", "newer", "older", "unreadable"]

MIGRATIONS = "SELECT name FROM _sqlite_migrations WHERE migration_set = :set"
TABLES = "SELECT count(*) FROM sqlite_master"


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


MISSING = Trouble("missing", "there is no log yet", "`floe aggregator` writes it; [paths] log names its folder")
LOCKED = Trouble("locked", "another program holds the log for itself alone", "close it there, and look again")
_RESTORE = "stop the aggregator and restore a backup, or move the log away to begin a new one; `floe check` says more"
_NOT_OURS = Trouble("damaged", "this is a database, but not Floe's log", _RESTORE)


def trouble_of_file(path: Path) -> Trouble | None:
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


def trouble_of_version(db: sqlite3.Connection) -> Trouble | None:
    """Whether this Floe can read it. Raises `sqlite3.Error`, for `trouble_of_error`."""
    try:
        applied = {row[0] for row in db.execute(MIGRATIONS, {"set": NAME})}
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


def trouble_of_error(error: sqlite3.Error) -> Trouble:
    """An error of SQLite (https://www.sqlite.org/rescode.html) in words. Raises one that is not about the file."""
    code = _code_of(error)
    if is_locked(error):
        return LOCKED
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Trouble("damaged", f"the log is damaged ({error})", _RESTORE)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        return _unreadable(str(error))
    raise error


def is_locked(error: Exception) -> bool:
    """Whether it says that somebody else holds the log, which is no fault of the file's."""
    return _code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code_of(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _unreadable(why: str) -> Trouble:
    way_out = (
        "run this as the account that writes it; it must be able to read it and, as SQLite does, to write beside it"
    )
    return Trouble("unreadable", f"the log cannot be read ({why})", way_out)
