"""The tables of the log, `floe.sqlite`, as they came to be: one migration after another, none is ever changed.

Times are UTC, ISO 8601, text that sorts. A value that a device did not give is NULL.
"""

from __future__ import annotations

from floe.sqlite import Database, Migrations

NAME = "floe"
migrations = Migrations(NAME)


def known() -> frozenset[str]:
    """The names of all migrations that this Floe has."""
    return frozenset(migration.name for migration in migrations._migrations)


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


@migrations()
def m006_watching(db: Database) -> None:
    """What a page shows: how members are, what devices say, what is on its way, sums that are too slow to count."""
    for statement in _M006.split(";\n\n"):
        db.execute(statement)


# `devices.rounds`, `bytes`, `trained`: train updates accepted, bytes of all its updates, its newest accepted train
# update. `updates.weight`: its share in the mean of the round that merged it. `rounds.local_...`: the devices' own
# models after training, weighted by test rows. `control.model`: the global model that an operator made the present
# one, when `model_after` was the newest; `plan`: the operator's, in place of `plan_over`, that of floe.toml.
# `journal.time`: when the aggregator heard the line; `said_at`: when the device says that it was written. A device that
# was away, or lies, says anything, so nothing is ordered by it.
# `vitals.member`: a device, or lineage/<lineage>. `standing`: where the rounds stand, and the
# plan of the next (JSON); `changed_at`: since when, `seen_at`: when it was last written, some seconds ago at most.
_M006 = """
ALTER TABLE devices ADD COLUMN rounds INTEGER NOT NULL DEFAULT 0;

ALTER TABLE devices ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

ALTER TABLE devices ADD COLUMN trained INTEGER;

ALTER TABLE devices ADD COLUMN telemetry_seq INTEGER NOT NULL DEFAULT 0;

ALTER TABLE devices ADD COLUMN vitals INTEGER;

ALTER TABLE updates ADD COLUMN weight REAL;

ALTER TABLE rounds ADD COLUMN local_loss REAL;

ALTER TABLE rounds ADD COLUMN local_accuracy REAL;

ALTER TABLE rounds ADD COLUMN local_roc_auc REAL;

ALTER TABLE control ADD COLUMN plan TEXT NOT NULL DEFAULT '';

ALTER TABLE control ADD COLUMN plan_over TEXT NOT NULL DEFAULT '';

ALTER TABLE control ADD COLUMN model TEXT NOT NULL DEFAULT '';

ALTER TABLE control ADD COLUMN model_after TEXT NOT NULL DEFAULT '';

CREATE TABLE vitals (
    id INTEGER PRIMARY KEY, member TEXT NOT NULL, time TEXT NOT NULL, cpu_percent REAL, memory_percent REAL,
    process_bytes INTEGER, disk_percent REAL, disk_free_bytes INTEGER, sent_bytes_s REAL, received_bytes_s REAL,
    temperature_c REAL, uptime_s REAL, retries INTEGER, model_sha256 TEXT
);

CREATE INDEX vitals_by_member ON vitals (member, id);

CREATE TABLE journal (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, said_at TEXT NOT NULL, device TEXT NOT NULL, level TEXT NOT NULL,
    text TEXT NOT NULL
);

CREATE INDEX journal_by_device ON journal (device, id);

CREATE INDEX events_by_device ON events (device, id);

CREATE INDEX events_bad ON events (id) WHERE level != 'info';

CREATE INDEX rounds_figures ON rounds (
    lineage, epoch, round, task, state, accepted, refused, bytes_up, bytes_down, seconds, local_loss, local_accuracy,
    local_roc_auc
);

CREATE TABLE uploads (
    device TEXT PRIMARY KEY, round INTEGER NOT NULL, task TEXT NOT NULL, received INTEGER NOT NULL,
    chunks INTEGER NOT NULL, since TEXT NOT NULL
);

CREATE TABLE standing (
    lineage TEXT PRIMARY KEY, epoch INTEGER NOT NULL, round INTEGER NOT NULL, task TEXT NOT NULL, stage TEXT NOT NULL,
    held TEXT NOT NULL, last INTEGER NOT NULL, online INTEGER NOT NULL, needed INTEGER NOT NULL,
    quorum INTEGER NOT NULL, plan TEXT NOT NULL, deadline_at TEXT, changed_at TEXT NOT NULL, seen_at TEXT NOT NULL
);

CREATE TABLE broker (topic TEXT PRIMARY KEY, value TEXT NOT NULL, time TEXT NOT NULL);

UPDATE devices SET rounds = sums.rounds, bytes = sums.bytes, trained = sums.trained FROM (
    SELECT device, sum(task = 'train' AND outcome = 'accepted') AS rounds, sum(bytes) AS bytes,
        max(iif(task = 'train' AND outcome = 'accepted', id, NULL)) AS trained
    FROM updates NOT INDEXED GROUP BY device) AS sums
WHERE sums.device = devices.device;

UPDATE rounds AS r SET (local_loss, local_accuracy, local_roc_auc) = (
    SELECT sum(loss * test_samples) / sum(test_samples), sum(accuracy * test_samples) / sum(test_samples),
        sum(roc_auc * test_samples) / sum(iif(roc_auc IS NULL, NULL, test_samples))
    FROM updates u WHERE (u.lineage, u.epoch, u.merged, u.task) = (r.lineage, r.epoch, r.round, r.task)
        AND u.outcome = 'accepted' AND u.loss IS NOT NULL AND u.test_samples > 0)
WHERE state = 'closed' AND task = 'train'
"""


@migrations()
def m007_learning(db: Database) -> None:
    """What is spent of privacy, of examples and of devices; clipping; thresholds and their histograms."""
    for statement in _M007.split(";\n\n"):
        db.execute(statement)


# `updates.epsilon` and `delta`: an example's, as the device accounts for it, all its rounds so far. `rounds.epsilon`
# and `delta`: a device's, all rounds so far; `clip_norm`: what updates were cut to; `threshold`: agreed in this phase.
_M007 = """
ALTER TABLE updates ADD COLUMN epsilon REAL;

ALTER TABLE updates ADD COLUMN delta REAL;

ALTER TABLE updates ADD COLUMN accountant TEXT;

ALTER TABLE updates ADD COLUMN histogram TEXT;

ALTER TABLE devices ADD COLUMN epsilon REAL;

ALTER TABLE devices ADD COLUMN delta REAL;

ALTER TABLE devices ADD COLUMN accountant TEXT;

ALTER TABLE rounds ADD COLUMN epsilon REAL;

ALTER TABLE rounds ADD COLUMN delta REAL;

ALTER TABLE rounds ADD COLUMN accountant TEXT;

ALTER TABLE rounds ADD COLUMN clip_norm REAL;

ALTER TABLE rounds ADD COLUMN threshold REAL;

CREATE INDEX rounds_spent ON rounds (lineage, task, epoch, round) WHERE epsilon IS NOT NULL
"""


@migrations()
def m008_accounts(db: Database) -> None:
    """What a device has said of its account, by round: whether the next one fell."""
    db.execute("CREATE INDEX updates_spent ON updates (device, lineage, epoch, round) WHERE epsilon IS NOT NULL")
