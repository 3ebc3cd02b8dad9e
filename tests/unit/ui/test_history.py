"""A device's history: updates and rounds without one, and what it is known by."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.small import add_model, known, open_round, train, update

from aggregator.log import Log
from ui.queries import history
from ui.queries.history import Papers, Refusal

FIRST, LAST = "2026-11-21T23:46:07.123Z", "2026-11-22T00:00:00.000Z"


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    known(log, "a", "ab")
    add_model(log, 0)
    for round in range(1, 6):
        open_round(log, round, ["a", "ab"] if round != 4 else ["ab"])
        if round in (1, 3):
            update(log, "a", round)
        if round == 5:
            update(log, "a", round, "rejected", "metrics", "no")
        log.close_round(train(round), up=1, down=1, model=None)
    return log


def test_rounds_without_an_update_are_in_the_history_newest_first(log: Log) -> None:
    found = history.parts(log.db.conn, "main", "a")
    assert [(one.round, one.ended.how) for one in found] == [
        (5, "rejected"), (4, "not asked"), (3, "took part"), (2, "no answer"), (1, "took part"),
    ]  # fmt: skip
    first = found[-1]
    assert (first.loss_before, first.loss_after, first.accuracy_before, first.accuracy_after) == (1.0, 0.5, 0.5, 0.75)
    assert (first.bytes, first.seconds, first.samples, first.threshold) == (1000, 1.5, 20, 0.1)


def test_rounds_before_the_updates_that_were_read_are_not_told_as_missed(log: Log) -> None:
    found = history.parts(log.db.conn, "main", "a", updates=2)
    assert [(one.round, one.ended.how) for one in found] == [(5, "rejected"), (4, "not asked"), (3, "took part")]


def test_a_history_is_read_anew_after_an_update_and_after_a_round(log: Log) -> None:
    before = history.newest(log.db.conn, "main", "a")
    open_round(log, 6, ["a"])
    assert history.newest(log.db.conn, "main", "a") == before
    update(log, "a", 6)
    updated = history.newest(log.db.conn, "main", "a")
    log.close_round(train(6), up=1, down=1, model=None)
    assert len({before, updated, history.newest(log.db.conn, "main", "a")}) == 3


def test_a_name_within_another_name_was_not_asked(log: Log) -> None:
    open_round(log, 6, ["ab"])
    log.close_round(train(6), up=1, down=1, model=None)
    assert history.parts(log.db.conn, "main", "a")[0].ended.how == "not asked"


def test_what_is_known_of_a_device_is_its_card_s_where_it_has_one(log: Log) -> None:
    assert history.papers(log.db.conn, "a") == Papers("key of a", *(None,) * 4, False, *(None,) * 5)
    log.db.execute("INSERT INTO roster VALUES ('a', 'revoked', 3, 'signing', 'suite', 'hash', '{}', 1, ?)", [LAST])
    log.db.execute("INSERT INTO requests VALUES ('a', 'n', '{}', 'c', '', 'pending', 123)")
    log.db.execute("INSERT INTO certificates VALUES ('a', 't', 'pem', 'issuer', 456)")
    assert history.papers(log.db.conn, "a") == Papers(
        "signing", "revoked", 3, "suite", "hash", True, LAST, "pending", 123, "issuer", 456
    )


def test_refusals_are_those_of_the_device(log: Log) -> None:
    rows = [("a", "signature", 4, FIRST, LAST), ("ab", "closed", 1, FIRST, LAST)]
    log.db.conn.executemany("INSERT INTO refusals VALUES (?, ?, ?, ?, ?)", rows)
    assert history.refusals(log.db.conn, "a") == (Refusal("signature", 4, FIRST, LAST),)
