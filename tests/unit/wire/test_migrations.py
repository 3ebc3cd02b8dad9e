"""A log of an earlier Floe, brought up to date: what is kept as sums afterwards is counted once."""

from __future__ import annotations

from pathlib import Path

from floe.migrations import migrations
from floe.sqlite import Database
from floe.store import open_log

UPDATE = """
INSERT INTO updates (transfer, device, lineage, epoch, round, task, outcome, reason, detail, loss, accuracy,
    test_samples, bytes, suite, time, merged)
VALUES (?, ?, 'main', 1, ?, ?, ?, '', '', ?, ?, ?, ?, 'plaintext', '', ?)
"""
ROUND = """
INSERT INTO rounds (lineage, epoch, round, task, state, plan, bar, expected, opened_at)
VALUES ('main', 1, ?, 'train', ?, '{}', '', '[]', '')
"""


def before(path: Path, name: str) -> Database:
    """A log as the migrations before `name` make it."""
    db = Database(path)
    migrations.apply(db, stop_before=name)
    return db


def test_the_sums_of_devices_and_rounds_are_counted_from_the_updates(tmp_path: Path) -> None:
    path = tmp_path / "floe.sqlite"
    db = before(path, "m006_watching")
    for device in ("a", "b", "silent"):
        db.execute(
            "INSERT INTO devices (device, key, state, seq, first_seen, last_seen) VALUES (?, '', 'idle', 0, '', '')",
            [device],
        )
    for number, state in ((1, "closed"), (2, "open")):
        db.execute(ROUND, [number, state])
    updates = [
        ("t1", "a", 1, "train", "accepted", 0.5, 0.8, 10, 100, 1),
        ("t2", "b", 1, "train", "accepted", 0.2, 0.4, 30, 50, 1),
        ("t3", "a", 2, "train", "late", None, None, None, 7, None),
        ("t4", "a", 2, "evaluate", "accepted", 0.1, 0.9, 10, 3, 2),
    ]
    for row in updates:
        db.execute(UPDATE, row)
    db.conn.commit()
    db.close()
    log = open_log(path)
    devices = list(log.execute("SELECT device, rounds, bytes, trained FROM devices ORDER BY device").fetchall())
    assert devices == [("a", 1, 110, 1), ("b", 1, 50, 2), ("silent", 0, 0, None)]
    rounds = log.execute("SELECT round, local_loss, local_accuracy, local_roc_auc FROM rounds ORDER BY round")
    (first, second) = rounds.fetchall()
    assert (first[0], round(first[1], 9), round(first[2], 9), first[3]) == (1, 0.275, 0.5, None)
    assert second == (2, None, None, None)
    log.close()
