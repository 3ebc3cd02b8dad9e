"""Opens the log, `floe.sqlite`: WAL, migrations (`floe.migrations`). Written by the aggregator, read by all who like.

Times are UTC, ISO 8601, text that sorts. A value that a device did not give is NULL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from floe.errors import StoreError
from floe.migrations import known, migrations
from floe.sqlite import Database

FILE = "floe.sqlite"
CSV = "updates.csv"


def now(after_s: float = 0.0) -> str:
    """The time as it stands in the log, or so many seconds after it: 2026-11-21T23:46:07.123Z."""
    return _text(datetime.now(UTC) + timedelta(seconds=after_s))


def before(time: str, seconds: float) -> str:
    """So many seconds before a time of the log."""
    return _text(datetime.fromisoformat(time) - timedelta(seconds=seconds))


def open_log(path: Path) -> Database:
    """Open for writing, made or migrated as needed. Commits survive the end of the process; `durably` the power's too.

    Raises `StoreError` for a file that is not a database, is damaged, or comes from a newer Floe.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        wal = path.with_name(f"{path.name}-wal")
        if path.exists() and not path.stat().st_size and wal.exists() and wal.stat().st_size:
            raise OSError(f"it is empty, but {wal.name} is there")
        db = Database(path)
        if (fault := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"damaged: {fault}")
        db.enable_wal()
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA busy_timeout=10000")
        migrations.apply(db)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{path}: cannot be opened as Floe's log ({error}); restore a backup, or move it away to begin a new one"
        ) from None
    newer = {migration.name for migration in migrations.applied(db)} - known()
    if newer:
        db.close()
        raise StoreError(f"{path}: written by a newer Floe ({', '.join(sorted(newer))}); update this one")
    return db


@contextmanager
def durably(db: Database) -> Iterator[None]:
    """A transaction that is on disk when the block has ended, and with it all that was committed before."""
    db.execute("PRAGMA synchronous=FULL")
    try:
        with db.atomic():
            yield
    finally:
        db.execute("PRAGMA synchronous=NORMAL")


def read_log(path: Path, *, timeout_s: float = 10.0) -> Database:
    """Open read-only while the aggregator writes; for one thread. Raises `StoreError` where there is none.

    `timeout_s`: how long a statement waits for a lock, in seconds, before it raises `sqlite3.OperationalError`.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no log there yet; is this the folder of the aggregator's [paths] log?")
    mode = "mode=ro&immutable=1" if _is_at_rest_and_not_ours(path) else "mode=ro"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=timeout_s)
    return Database(connection)


def _is_at_rest_and_not_ours(path: Path) -> bool:
    """Whether nobody has it open, in a folder where we may not make the files through which a WAL is read.

    Then SQLite reads it only when told that it does not change (https://www.sqlite.org/wal.html#read_only_databases).
    """
    wal = path.with_name(f"{path.name}-wal")
    return not wal.exists() and not os.access(
        path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids
    )


def present_model(db: Database, lineage: str, epoch: int) -> dict[str, Any] | None:
    """The row of the global model that the next round starts from: the newest, or the one that an operator chose since.

    The choice holds until a newer one is made: `control.model_after` is `place_of` the model that was the newest.
    """
    return next(iter(db.query(_PRESENT, {"lineage": lineage, "epoch": epoch})), None)


def place_of(epoch: int, round: int) -> str:
    """A model's place in its lineage, as `control.model_after` has it."""
    return f"{epoch}-{round}"


_PRESENT = """
SELECT m.* FROM models m LEFT JOIN control c ON c.lineage = m.lineage AND c.model_after = (
    SELECT epoch || '-' || max(round) FROM models WHERE lineage = :lineage AND epoch = :epoch)
WHERE m.lineage = :lineage AND m.epoch = :epoch ORDER BY m.sha256 = c.model DESC, m.round DESC LIMIT 1
"""


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
