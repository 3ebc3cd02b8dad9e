"""Counters of refusals: over restarts, written sparingly, bounded."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from aggregator.events import STRANGERS
from aggregator.log import Log
from floe.messages import Status


def counted(log: Log) -> dict[tuple[str, str], int]:
    return {
        (row["device"], row["reason"]): row["count"] for row in log.db.query("SELECT * FROM refusals ORDER BY device")
    }


def test_counts_go_on_over_restarts(tmp_path: Path) -> None:
    for _ in range(3):
        log = Log(tmp_path)
        log.pin("a", "key")
        for reason in ("signature", "signature", "flood"):
            log.refused("a", reason)
        log.close()
    log = Log(tmp_path)
    assert counted(log) == {("a", "signature"): 6, ("a", "flood"): 3}
    first, last = log.db.execute("SELECT first, last FROM refusals WHERE reason = 'flood'").fetchone()
    assert first < last
    log.close()


def test_a_flood_is_written_once_a_second(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.pin("a", "key")
    statements: list[str] = []
    log.db.conn.set_trace_callback(lambda text: statements.append(text.strip()) if text.startswith("COMMIT") else None)
    for number in range(10_000):
        log.refused("a", "flood")
        log.flush(100 + number / 5000)  # two seconds
    log.db.conn.set_trace_callback(None)
    assert len(statements) == 2
    log.flush(200.0)
    assert counted(log) == {("a", "flood"): 10_000}
    log.close()


def test_made_up_names_are_one_row_and_few_events(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for number in range(2000):
        log.refused(f"ghost-{number}", "signature")
        log.event("warning", "refused", f"ghost-{number}: signature", device=f"ghost-{number}", reason="signature")
    log.refused(None, "malformed")
    log.flush(1.0)
    assert counted(log) == {("", "signature"): 2000, ("", "malformed"): 1}
    assert log.db.table("events").count <= STRANGERS
    log.close()


def test_what_finds_no_room_is_kept_and_written_later(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.refused(None, "malformed")
    log.db.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        log.flush(1.0)
    log.db.execute("PRAGMA query_only = OFF")
    log.flush(3.0)
    log.flush(5.0)
    assert counted(log) == {("", "malformed"): 1}
    log.close()


def test_a_flood_of_statuses_is_written_once_a_second_and_the_newest_stays(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.pin("a", "key")
    statements: list[str] = []
    log.db.conn.set_trace_callback(lambda text: statements.append(text) if text.startswith("COMMIT") else None)
    for number in range(10_000):
        status = Status(federation="f", sender="a", key="key", proof="", seq=number, state="online")
        assert log.status(status)
        log.flush(100 + number / 5000)  # two seconds
    log.db.conn.set_trace_callback(None)
    assert len(statements) == 2
    log.close()
    log = Log(tmp_path)
    assert log.db.execute("SELECT seq, state FROM devices").fetchall() == [(9999, "online")]
    log.close()
