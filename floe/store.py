"""Opens the log, `floe.sqlite`: WAL, migrations. Written by the aggregator, read by whoever likes.

Times are UTC, ISO 8601, text that sorts. A value that a device did not give is NULL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from floe.errors import StoreError
from floe.sqlite import Database, Migrations

FILE = "floe.sqlite"
CSV = "updates.csv"

migrations = Migrations("floe")


def now() -> str:
    """The time as it stands in the log: 2026-11-21T23:46:07.123Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
    known = {migration.name for migration in migrations._migrations}
    newer = {migration.name for migration in migrations.applied(db)} - known
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


def read_log(path: Path) -> Database:
    """Open read-only while the aggregator writes. Raises `StoreError` where there is none."""
    if not path.is_file():
        raise StoreError(f"{path}: no log there yet; is this the folder of the aggregator's [paths] log?")
    connection = sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True, timeout=10)
    return Database(connection)


@migrations()
def m001_the_log(db: Database) -> None:
    """Federations, devices, rounds, updates, models, events."""
    for statement in _M001.split(";\n\n"):
        db.execute(statement)


@migrations()
def m002_late_updates_and_operators(db: Database) -> None:
    """Into which round an accepted update went; what the operator asked for, and who may ask."""
    for statement in _M002.split(";\n\n"):
        db.execute(statement)


_M002 = """
ALTER TABLE updates ADD COLUMN merged INTEGER;

UPDATE updates SET merged = round WHERE outcome = 'accepted';

CREATE INDEX updates_by_merged ON updates (lineage, epoch, merged, task);

CREATE INDEX rounds_by_base ON rounds (lineage, epoch, base_sha256);

CREATE TABLE control (
    lineage TEXT PRIMARY KEY, held TEXT NOT NULL, last INTEGER NOT NULL, since INTEGER NOT NULL, count INTEGER NOT NULL,
    opens TEXT NOT NULL
);

CREATE TABLE operators (
    operator TEXT NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, done INTEGER NOT NULL, detail TEXT NOT NULL,
    reason TEXT NOT NULL, last_seen TEXT NOT NULL,
    PRIMARY KEY (operator, key)
)
"""


@migrations()
def m003_refusals(db: Database) -> None:
    """How often what was refused, by device ('': names without a key) and reason."""
    db.execute(
        "CREATE TABLE refusals (device TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL, "
        "first TEXT NOT NULL, last TEXT NOT NULL, PRIMARY KEY (device, reason))"
    )


@migrations()
def m004_the_roster(db: Database) -> None:
    """The newest head, every device's card, who asks to join, and open invitations (their tokens' hashes)."""
    for statement in _M004.split(";\n\n"):
        db.execute(statement)


_M004 = """
CREATE TABLE heads (
    lineage TEXT PRIMARY KEY, version INTEGER NOT NULL, head TEXT NOT NULL, changed_at TEXT NOT NULL
);

CREATE TABLE roster (
    device TEXT PRIMARY KEY, state TEXT NOT NULL, version INTEGER NOT NULL, signing TEXT NOT NULL, suite TEXT NOT NULL,
    hash TEXT NOT NULL, card TEXT NOT NULL, rotate INTEGER NOT NULL DEFAULT 0, changed_at TEXT NOT NULL
);

CREATE TABLE requests (
    device TEXT PRIMARY KEY, nonce TEXT NOT NULL, keys TEXT NOT NULL, challenge TEXT NOT NULL,
    endorsement TEXT NOT NULL, state TEXT NOT NULL, time INTEGER NOT NULL
);

CREATE TABLE invitations (
    token TEXT PRIMARY KEY, device TEXT NOT NULL, until INTEGER NOT NULL, operator TEXT NOT NULL,
    used_by TEXT NOT NULL, made_at TEXT NOT NULL
)
"""


@migrations()
def m005_certificates(db: Database) -> None:
    """What devices log in with at the broker, and when that is to be renewed (unix seconds)."""
    db.execute(
        "CREATE TABLE certificates (device TEXT PRIMARY KEY, tls TEXT NOT NULL, pem TEXT NOT NULL, "
        "issuer TEXT NOT NULL, renew_at INTEGER NOT NULL)"
    )


_M001 = """
CREATE TABLE federations (
    federation TEXT NOT NULL, lineage TEXT NOT NULL, epoch INTEGER NOT NULL,
    suite TEXT NOT NULL, schema TEXT, created_at TEXT NOT NULL,
    PRIMARY KEY (federation, lineage, epoch)
);

CREATE TABLE devices (
    device TEXT PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL, seq INTEGER NOT NULL,
    software TEXT NOT NULL DEFAULT '', first_seen TEXT NOT NULL, last_seen TEXT NOT NULL,
    task TEXT, round INTEGER, threshold REAL, model_sha256 TEXT
);

CREATE TABLE rounds (
    lineage TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL, task TEXT NOT NULL,
    state TEXT NOT NULL, base_sha256 TEXT, plan TEXT NOT NULL, bar TEXT NOT NULL, expected TEXT NOT NULL,
    accepted INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0,
    bytes_up INTEGER NOT NULL DEFAULT 0, bytes_down INTEGER NOT NULL DEFAULT 0,
    opened_at TEXT NOT NULL, closed_at TEXT, seconds REAL,
    PRIMARY KEY (lineage, epoch, round, task)
);

CREATE TABLE updates (
    id INTEGER PRIMARY KEY, transfer TEXT NOT NULL UNIQUE, device TEXT NOT NULL,
    lineage TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL, task TEXT NOT NULL,
    outcome TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    samples INTEGER, test_samples INTEGER, accuracy REAL, loss REAL, roc_auc REAL,
    base_accuracy REAL, base_loss REAL, base_roc_auc REAL, train_loss REAL, threshold REAL,
    bytes INTEGER NOT NULL, seconds REAL, sha256 TEXT, suite TEXT NOT NULL, time TEXT NOT NULL
);

CREATE INDEX updates_by_phase ON updates (lineage, epoch, round, task, outcome);

CREATE INDEX updates_by_device ON updates (device, id);

CREATE TABLE models (
    lineage TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL,
    sha256 TEXT NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL, devices INTEGER NOT NULL,
    samples INTEGER NOT NULL, signature TEXT NOT NULL, created_at TEXT NOT NULL,
    loss REAL, accuracy REAL, roc_auc REAL, test_samples INTEGER,
    PRIMARY KEY (lineage, epoch, round)
);

CREATE TABLE events (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, level TEXT NOT NULL, kind TEXT NOT NULL,
    device TEXT, reason TEXT, text TEXT NOT NULL
)
"""
