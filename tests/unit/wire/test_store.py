"""The log is opened, migrated, and never mistaken."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from floe.errors import StoreError
from floe.migrations import migrations
from floe.store import durably, now, open_log, read_log


def test_a_new_log_has_its_tables_in_wal_mode_and_syncs_what_is_promised(tmp_path: Path) -> None:
    db = open_log(tmp_path / "log" / "floe.sqlite")
    assert {"federations", "devices", "rounds", "updates", "models", "events"} <= set(db.table_names())
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    event = {"time": now(), "level": "info", "kind": "k", "text": "t"}
    assert db.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL
    with durably(db):
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        db.table("events").insert(event)
    with pytest.raises(sqlite3.OperationalError), durably(db):
        db.execute("INSERT INTO nowhere VALUES (1)")
    assert db.execute("PRAGMA synchronous").fetchone() == (1,)
    assert db.table("events").count == 1
    db.close()


def test_a_log_that_is_opened_again_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "floe.sqlite"
    db = open_log(path)
    db.table("events").insert({"time": now(), "level": "info", "kind": "k", "text": "t"})
    db.close()
    again = open_log(path)
    assert again.table("events").count == 1
    again.close()


def test_a_file_that_is_no_database_is_named_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "floe.sqlite"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(StoreError, match=r"floe\.sqlite: cannot be opened as Floe's log .*move it away"):
        open_log(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_log_of_a_newer_floe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "floe.sqlite"
    db = open_log(path)
    row = dict(next(iter(db.query("SELECT * FROM _sqlite_migrations LIMIT 1"))))
    db.table("_sqlite_migrations").insert(row | {"name": "m999_later"} | ({"id": 999} if "id" in row else {}))
    db.close()
    with pytest.raises(StoreError, match=r"written by a newer Floe \(m999_later\); update this one"):
        open_log(path)


def test_migrations_are_named_in_their_order() -> None:
    found = [migration.name for migration in migrations._migrations]
    assert found == sorted(found)
    assert all(re.match(r"m\d{3}_", name) for name in found)


def test_a_reader_sees_what_is_written_and_can_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "floe.sqlite"
    db, reader = open_log(path), read_log(path)
    db.table("events").insert({"time": now(), "level": "info", "kind": "k", "text": "t"})
    assert reader.table("events").count == 1
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.table("events").insert({"time": now(), "level": "info", "kind": "k", "text": "t"})
    reader.close()
    db.close()


def test_reading_a_log_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no log there yet"):
        read_log(tmp_path / "floe.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_times_are_utc_and_sort_as_text() -> None:
    one, other = now(), now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one)
    assert one <= other
