"""updates.csv: the rows of `updates` for whoever has no SQLite at hand; appended and flushed, readable while it grows.

The database is the record: what a crash has cut is written anew from it. A device's words stand here so that neither
a spreadsheet nor a terminal does what they say.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from floe.errors import StoreError
from floe.files import replacing, set_aside
from floe.sqlite import Database
from floe.terminal import printable

COLUMNS = [
    *("time", "device", "lineage", "epoch", "round", "task", "outcome", "reason", "detail", "samples", "test_samples"),
    *("accuracy", "loss", "roc_auc", "base_accuracy", "base_loss", "base_roc_auc", "train_loss", "threshold"),
    *("epsilon", "delta", "accountant"),
    *("bytes", "seconds", "sha256", "suite", "merged", "transfer"),
]


class UpdatesCsv:
    """One file with a header and a line for each update."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._behind = False

    def append(self, row: dict[str, Any], db: Database) -> bool:
        """One more line, in the hands of the operating system when this returns; False if the disk refuses.

        Then the file is behind the database, which is no reason to hold up an update: it is written anew next time.
        """
        try:
            if self._behind:
                self.restore(db)
            else:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, COLUMNS, extrasaction="ignore").writerow(_harmless(row))
            self._behind = False
        except (OSError, StoreError):
            self._behind = True
        return not self._behind

    @contextmanager
    def amending(self, first: int | None, db: Database) -> Iterator[None]:
        """While a transaction changes rows from the id `first` on (None: none), their lines are away from the disk.

        So a kill, or a power cut, leaves a file that is behind, which the next start sees by the number of lines.
        """
        if first is None:
            yield
            return
        cut, lines = False, _text(db, first)
        with suppress(OSError):
            if not self._behind:
                with self.path.open("r+b") as file:
                    at = file.seek(-len(lines), os.SEEK_END)
                    if file.read() == lines:
                        file.truncate(at)
                        os.fsync(file.fileno())
                        cut = True
        self._behind = True
        yield
        with suppress(OSError):
            if cut:
                with self.path.open("ab") as file:
                    file.write(_text(db, first))
                self._behind = False

    def restore(self, db: Database) -> str:
        """Make the file say what the table `updates` says, if it does not. Raises `StoreError`.

        One that a crash has cut is written anew; one that says anything else is set aside first, and named.
        """
        told = ""
        if self._agrees(db):
            return told
        if os.path.lexists(self.path) and difference(self.path, db) != "cut":
            told = f"{self.path}: not what the database says; set aside as {set_aside(self.path).name} and written anew"
        self.renew(db)
        return told

    def renew(self, db: Database) -> None:
        """Write the file anew from the table: a minute for five million lines. Raises `StoreError`."""
        with replacing(self.path) as out:
            out.writelines(_lines(db))

    def _agrees(self, db: Database) -> bool:
        # Lines only ever get lost at the end, or at a full disk: the number of lines and the last one tell. The first
        # one tells of another version of Floe.
        if not self.path.is_file():
            return False
        rows = db.execute("SELECT count(*) FROM updates").fetchone()[0]
        last = db.execute("SELECT transfer FROM updates ORDER BY id DESC LIMIT 1").fetchone()
        with self.path.open("rb") as file:
            if file.readline() != next(_lines(db)):
                return False
            lines = 1 + sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
            file.seek(max(0, file.tell() - 200))
            ending = (last[0] if last else COLUMNS[-1]).encode()
            return lines == int(rows) + 1 and file.read().rstrip().endswith(ending)


def difference(path: Path, db: Database) -> str:
    """How the file differs from the table: not at all (empty), "cut" (it has the beginning), or "other"."""
    try:
        with path.open("rb") as file:
            for line in _lines(db):
                found = file.read(len(line))
                if found != line:
                    return "cut" if line.startswith(found) else "other"
            return "other" if file.read(1) else ""
    except OSError:
        return "other"


def _text(db: Database, first: int) -> bytes:
    """The lines of the rows from an id on."""
    return b"".join(islice(_lines(db, first), 1, None))


def _lines(db: Database, first: int = 0) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for row in db.query("SELECT * FROM updates WHERE id >= ? ORDER BY id", [first]):
        yield _taken(text)
        writer.writerow(_harmless(row))
    yield _taken(text)


def _harmless(row: dict[str, Any]) -> dict[str, Any]:
    """A device's own words as words: a spreadsheet takes what begins with `=` for a formula (OWASP, CSV Injection)."""
    detail = printable(row["detail"])
    return {**row, "detail": f"'{detail}" if detail.startswith(("=", "+", "-", "@")) else detail}


def _taken(text: io.StringIO) -> bytes:
    taken = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return taken
