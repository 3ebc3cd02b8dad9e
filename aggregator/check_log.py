"""The tables of the log against each other, in one read transaction. Writes nothing."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregator.statements import UNUSED
from floe.findings import Findings
from floe.sqlite import Database
from floe.store import present_model

TABLES = {"federations", "devices", "rounds", "updates", "models", "events", "refusals", "control", "operators"}
WAY_OUT = "the log was altered or restored in part: restore it as a whole from a backup"

Row = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """What the log says at one moment: all models, which is the present one, and the accepted updates with weights that
    wait for their round. `noised`: how many rounds have put noise on updates."""

    db: Database
    models: list[Row]
    present: Row | None
    unused: list[Row]
    noised: int


# Each gives a row for every fault: a text. `:lineage` is the lineage that is checked; PHASE names the row's phase.
_PHASE = "task || ' ' || round || ' (epoch ' || epoch || ')'"
FAULTS = {
    "accepted updates of a round that is not there": """
        SELECT device || ': ' || PHASE FROM updates u WHERE outcome = 'accepted' AND lineage = :lineage
        AND NOT EXISTS (SELECT * FROM rounds r
        WHERE (r.lineage, r.epoch, r.round, r.task) = (u.lineage, u.epoch, u.round, u.task))""",
    "a device accepted more than once in a phase": """
        SELECT device || ': ' || PHASE || ', ' || count(*) || ' times' FROM updates
        WHERE outcome = 'accepted' AND lineage = :lineage GROUP BY device, epoch, round, task HAVING count(*) > 1""",
    "an update of a device that has no key": """
        SELECT DISTINCT device FROM updates WHERE lineage = :lineage AND device NOT IN (SELECT device FROM devices)""",
    "a closed round whose count of accepted updates is another": """
        SELECT PHASE || ': ' || accepted || ', updates has ' || n FROM (SELECT r.*, (SELECT count(*) FROM updates u
        WHERE (r.lineage, r.epoch, r.round, r.task) = (u.lineage, u.epoch, u.merged, u.task) AND outcome = 'accepted') n
        FROM rounds r WHERE lineage = :lineage AND state = 'closed') WHERE accepted != n""",
    "a model whose training round has not closed": """
        SELECT 'model ' || round || ' (epoch ' || epoch || ')' FROM models m WHERE lineage = :lineage AND round > 0
        AND NOT EXISTS (SELECT * FROM rounds r WHERE (r.lineage, r.epoch, r.round) = (m.lineage, m.epoch, m.round)
        AND r.task = 'train' AND r.state = 'closed') AND NOT EXISTS (SELECT * FROM models c WHERE c.epoch < m.epoch
        AND (c.lineage, c.sha256) = (m.lineage, m.sha256))""",  # carried over into a new epoch
    "a closed training round without its model": """
        SELECT PHASE FROM rounds r WHERE lineage = :lineage AND task = 'train' AND state = 'closed' AND base_sha256
        IS NOT NULL AND NOT EXISTS (SELECT * FROM models m WHERE (r.lineage, r.epoch, r.round) =
        (m.lineage, m.epoch, m.round))""",
    "a round that starts from a model that is not there": """
        SELECT PHASE || ': ' || substr(base_sha256, 1, 12) FROM rounds r WHERE lineage = :lineage AND base_sha256
        IS NOT NULL AND NOT EXISTS (SELECT * FROM models m WHERE (r.lineage, r.epoch, r.base_sha256) =
        (m.lineage, m.epoch, m.sha256))""",
    "more than one open round": """
        SELECT 'epoch ' || epoch || ': ' || count(*) FROM rounds WHERE lineage = :lineage AND state = 'open'
        GROUP BY epoch HAVING count(*) > 1""",
}


def read(connection: sqlite3.Connection, path: Path, lineage: str, found: Findings) -> Snapshot | None:
    """Look through the tables of a lineage; None if the database is of another, or too damaged to go on.

    Raises `sqlite3.Error` for what is no database.
    """
    db = Database(connection)
    faults = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
    if faults != ["ok"]:
        raise sqlite3.DatabaseError(f"integrity_check: {'; '.join(faults)}")
    if missing := TABLES - set(db.table_names()):
        raise sqlite3.DatabaseError(f"it has no table {', '.join(sorted(missing))}")
    owners = {row[0] for row in connection.execute("SELECT DISTINCT lineage FROM federations")}
    if owners and lineage not in owners:
        found.note(path, f"belongs to lineage {', '.join(sorted(owners))}, not to {lineage!r}: its log is elsewhere")
        return None
    given = {"lineage": lineage}
    for what, sql in FAULTS.items():
        for (text,) in connection.execute(sql.replace("PHASE", _PHASE), given).fetchmany(20):
            found.damage(path, f"{what}: {text}", WAY_OUT)
    found.count(
        "round", connection.execute("SELECT count(*) FROM rounds WHERE lineage = :lineage", given).fetchone()[0]
    )
    found.count(
        "update", connection.execute("SELECT count(*) FROM updates WHERE lineage = :lineage", given).fetchone()[0]
    )
    models = list(db.query("SELECT * FROM models WHERE lineage = :lineage ORDER BY epoch, round", given))
    epoch = connection.execute("SELECT max(epoch) FROM federations WHERE lineage = :lineage", given).fetchone()[0]
    present = present_model(db, lineage, epoch) if epoch else None
    noised = "SELECT count(*) FROM rounds WHERE lineage = :lineage AND clip_norm IS NOT NULL"
    waiting = list(db.query(UNUSED, {**given, "epoch": epoch}))
    return Snapshot(db, models, present, waiting, connection.execute(noised, given).fetchone()[0])
