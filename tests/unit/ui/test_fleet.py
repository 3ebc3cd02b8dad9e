"""The table of all devices: how the last round ended for each, and what the columns say."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path

import pytest
from helpers.small import add_model, known, open_round, train, update

from aggregator.log import Log
from ui.parts import fleet as table
from ui.parts.endings import ended_words, missed_words
from ui.queries import fleet
from ui.queries.fleet import Ended
from ui.queries.standing import states


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    known(log, "a", "b", "c", "__proto__", "-rf")
    add_model(log, 0)
    return log


def test_before_any_round_is_over_there_is_no_last_one(log: Log) -> None:
    open_round(log, 1, ["a"])
    assert fleet.last_round(log.db.conn, "main") is None
    assert states(log.db.conn) == {"idle": 5}


def test_the_last_round_tells_how_it_ended_for_each_device(log: Log) -> None:
    open_round(log, 1, ["a", "b", "c", "__proto__"])
    update(log, "a", 1)
    update(log, "b", 1, "rejected", "weights", "**no** <b>tensor</b>")
    update(log, "__proto__", 1, "late", "closed", "the round closed before it was complete")
    log.close_round(train(1), up=1, down=1, model=None)
    open_round(log, 2, ["a", "b"])
    last = fleet.last_round(log.db.conn, "main")
    assert last is not None
    assert last.round == 1
    for name in ("a", "b", "c", "__proto__", "-rf"):
        alone = fleet.last_round(log.db.conn, "main", name)
        assert alone is not None
        assert alone.of(name) == last.of(name)
    assert last.of("a") == Ended("took part")
    assert last.of("b") == Ended("rejected", "weights", "**no** <b>tensor</b>")
    assert last.of("c") == Ended("no answer")
    assert last.of("-rf") == Ended("not asked")
    assert ended_words(last.of("__proto__")) == "late (closed): the round closed before it was complete"


def test_an_accepted_update_is_not_hidden_by_another_of_the_same_device(log: Log) -> None:
    open_round(log, 1, ["a"])
    update(log, "a", 1)
    update(log, "a", 1, "superseded", "newer", "a later update of this device came")
    log.close_round(train(1), up=1, down=1, model=None)
    last = fleet.last_round(log.db.conn, "main")
    assert last is not None
    assert last.of("a").how == "took part"


def test_an_update_that_another_round_took_was_late(log: Log) -> None:
    open_round(log, 1, ["a"])
    update(log, "a", 1, merged=2)
    log.close_round(train(1), up=1, down=1, model=None)
    last = fleet.last_round(log.db.conn, "main")
    assert last is not None
    assert ended_words(last.of("a")) == "late, merged in round 2"


def test_a_round_that_came_to_nothing_is_a_last_round_too(log: Log) -> None:
    open_round(log, 1, ["a"])
    log.void_round(train(1))
    last = fleet.last_round(log.db.conn, "main")
    assert last is not None
    assert last.of("a").how == "no answer"


def test_who_did_not_answer_was_away_since_when_or_is_still_busy(log: Log) -> None:
    log.db.execute("UPDATE devices SET state = 'offline', last_seen = '2026-11-22T10:00:00.000Z' WHERE device = 'a'")
    log.db.execute("UPDATE devices SET state = 'training', task = 'train', round = 7 WHERE device = 'b'")
    found = {one.device: one for one in fleet.devices(log.db.conn)}
    silent = Ended("no answer")
    assert missed_words(silent, found["a"], UTC) == "no answer; offline since 2026-11-22 10:00:00"
    assert missed_words(silent, found["b"], UTC) == "no answer in time; now training, train 7"


def test_a_device_has_the_figures_of_its_newest_update_and_report(log: Log) -> None:
    update(log, "a", 1, accuracy=0.25)
    (trained,) = log.db.execute("SELECT id FROM updates").fetchone()
    log.db.execute(
        "INSERT INTO vitals (id, member, time, cpu_percent, retries, model_sha256) "
        "VALUES (7, 'a', '2026-11-21T23:46:07Z', 12.5, 3, ?)",
        ["0" * 64],
    )
    log.db.execute("UPDATE devices SET trained = ?, vitals = 7, rounds = 4 WHERE device = 'a'", [trained])
    one = fleet.device(log.db.conn, "a")
    assert one is not None
    assert (one.accuracy, one.samples, one.cpu_percent, one.retries, one.rounds) == (0.25, 20, 12.5, 3, 4)
    assert [one for one in fleet.devices(log.db.conn) if one.device == "a"] == [one]
    assert fleet.device(log.db.conn, "nobody") is None
    columns = table.columns([one], None, fleet.rounds_of_models(log.db.conn, "main"), UTC)
    assert columns["Model (round)"] == ("whole", [0])
    assert columns["Last train round"] == ("words", [None])


def test_devices_are_found_by_state_and_text_in_either_case(log: Log) -> None:
    log.db.execute("UPDATE devices SET state = 'offline' WHERE device IN ('a', '__proto__')")
    log.db.execute("UPDATE devices SET software = 'Floe X' WHERE device = 'c'")
    all_ = fleet.devices(log.db.conn)
    assert [one.device for one in table.found(all_, ["offline"], "PROTO")] == ["__proto__"]
    assert [one.device for one in table.found(all_, [], " floe x ")] == ["c"]
    assert len(table.found(all_, [], "")) == 5


def test_a_name_is_found_among_those_asked_as_a_whole(log: Log) -> None:
    open_round(log, 1, ["device-10"])
    log.close_round(train(1), up=1, down=1, model=None)
    last = fleet.last_round(log.db.conn, "main")
    assert last is not None
    assert last.of("device-1").how == "not asked"
    assert json.dumps("device-1") not in json.dumps(["device-10"])
