"""The script that makes a big log makes one that holds together, and that the aggregator takes for its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.big import DEVICES, ROUNDS, big_log, small_log

from aggregator.log import Log
from floe.messages import Phase
from floe.store import FILE, now


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{small_log(tmp_path_factory)}?mode=ro", uri=True)) as connection:
        yield connection


def one(db: sqlite3.Connection, sql: str) -> Any:
    return db.execute(sql).fetchone()[0]


def test_it_has_so_many_of_everything(db: sqlite3.Connection) -> None:
    there = DEVICES - 1  # one has been away for long
    assert one(db, "SELECT count(*) FROM devices") == DEVICES
    assert one(db, "SELECT count(*) FROM rounds WHERE state = 'closed'") == ROUNDS
    assert one(db, "SELECT count(*) FROM models") == ROUNDS + 1
    assert one(db, "SELECT count(*) FROM updates") == ROUNDS * there
    assert one(db, "SELECT count(*) FROM vitals") == (DEVICES + 1) * 200
    assert one(db, "SELECT count(*) FROM journal") == DEVICES * 500


def test_sums_and_measurements_are_those_of_the_updates(db: sqlite3.Connection) -> None:
    assert one(db, "SELECT sum(rounds) FROM devices") == one(
        db, "SELECT count(*) FROM updates WHERE outcome = 'accepted'"
    )
    assert one(db, "SELECT sum(bytes) FROM devices") == one(db, "SELECT sum(bytes) FROM updates")
    assert one(db, "SELECT sum(accepted + refused) FROM rounds") == one(db, "SELECT count(*) FROM updates")
    assert one(db, "SELECT count(*) FROM models WHERE accuracy IS NULL") == 1  # the last one nobody has measured yet
    shares = db.execute("SELECT sum(weight) FROM updates WHERE outcome = 'accepted' GROUP BY merged").fetchall()
    assert [share for (share,) in shares] == pytest.approx([1.0] * ROUNDS)
    assert 0 < one(db, "SELECT count(*) FROM updates WHERE outcome != 'accepted'") < ROUNDS * DEVICES / 10


def test_its_times_go_up_to_now(db: sqlite3.Connection) -> None:
    times = [row[0] for row in db.execute("SELECT time FROM updates ORDER BY id")]
    assert times == sorted(times)
    assert times[0] < times[-1] <= now()


def test_it_is_gone_on_with(tmp_path: Path) -> None:
    make = big_log().make
    make(tmp_path, 5, 2)
    make(tmp_path, 5, 3)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert [row[0] for row in db.execute("SELECT round FROM rounds ORDER BY round")] == [1, 2, 3]
        assert one(db, "SELECT count(*) FROM vitals") == 6 * 200
        assert one(db, "SELECT sum(rounds) FROM devices") == one(
            db, "SELECT count(*) FROM updates WHERE outcome = 'accepted'"
        )


def test_the_aggregator_goes_on_from_it_and_nothing_stays_replaced(tmp_path: Path) -> None:
    big_log().make(tmp_path, 5, 2)
    with closing(Log(tmp_path)) as log:
        assert log.last_closed("main", 1) == Phase("main", 1, 2, "train")
        before = now()
        log.event("info", "opened", "train 3")
        assert next(iter(log.db.query("SELECT time FROM events ORDER BY id DESC LIMIT 1")))["time"] >= before
    assert (tmp_path / "updates.csv").exists()
