"""updates.csv: the rows of `updates` for whoever has no SQLite at hand; appended and flushed, readable while it grows.

The database is the record: what a crash left short, or long, is written anew from it.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from floe.errors import StoreError
from floe.files import replacing

COLUMNS = [
    *("time", "device", "lineage", "epoch", "round", "task", "outcome", "reason", "detail", "samples", "test_samples"),
    *("accuracy", "loss", "roc_auc", "base_accuracy", "base_loss", "base_roc_auc", "train_loss", "threshold"),
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
                    csv.DictWriter(file, COLUMNS).writerow(row)
            self._behind = False
        except (OSError, StoreError):
            self._behind = True
        return not self._behind

    def restore(self, db: Database) -> None:
        """Make the file say what the table `updates` says, if it does not. Raises `StoreError`."""
        if self._agrees(db):
            return
        with replacing(self.path) as out:
            text = io.TextIOWrapper(out, encoding="utf-8", newline="")
            writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(db.query("SELECT * FROM updates ORDER BY id"))
            text.flush()
            text.detach()

    def _agrees(self, db: Database) -> bool:
        # Lines only ever get lost at the end, or at a full disk: the number of lines and the last one tell.
        if not self.path.exists():
            return False
        rows = db.execute("SELECT count(*) FROM updates").fetchone()[0]
        last = db.execute("SELECT transfer FROM updates ORDER BY id DESC LIMIT 1").fetchone()
        with self.path.open("rb") as file:
            lines = sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
            file.seek(max(0, file.tell() - 200))
            ending = (last[0] if last else COLUMNS[-1]).encode()
            return lines == int(rows) + 1 and file.read().rstrip().endswith(ending)
