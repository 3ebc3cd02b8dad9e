"""How the rounds went: as the aggregator's own log has it, by indexes alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aggregator.log import Log, Outcome
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.selection import EVERYBODY
from floe.store import FILE
from ui.queries import network, progress, pulse

DEVICES = ["a", "b"]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(Log(tmp_path)) as made:
        made.federation("floe", "main", 1, "plaintext")
        yield made


@pytest.fixture
def db(log: Log, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def model(phase: Phase) -> dict[str, Any]:
    about = {"lineage": phase.lineage, "epoch": phase.epoch, "round": phase.round, "sha256": f"model {phase.round}"}
    return about | {"file": "", "bytes": 1, "devices": 2, "samples": 2, "signature": ""}


def train(log: Log, number: int, base_loss: float, epoch: int = 1) -> None:
    phase = Phase("main", epoch, number, "train")
    log.open_round(phase, f"model {number - 1}", Plan(), EVERYBODY, DEVICES)
    for device in DEVICES:
        told = Report(
            samples=5, test_samples=5, before=Metrics(loss=base_loss, accuracy=0.5),
            after=Metrics(loss=base_loss / 2, accuracy=0.75), threshold=0.1,
        )  # fmt: skip
        log.update(
            Outcome(f"{device} {epoch} {number}", device, phase, "accepted", "", ""),
            told, bytes_=10, sha256="f" * 64, suite="plaintext",
        )  # fmt: skip
    log.close_round(phase, up=100 * number, down=7, model=model(phase))


def test_a_round_has_what_was_measured_of_the_model_that_it_made(log: Log, db: sqlite3.Connection) -> None:
    for number in (1, 2, 3):
        train(log, number, base_loss=1.0 / number)
    first, second, third = progress.trained(db, "main")
    assert (first.round, first.accepted, first.refused, first.bytes_up, first.bytes_down) == (1, 2, 0, 100, 7)
    assert first.loss == pytest.approx(0.5), "the devices of round 2 began with the model of round 1"
    assert second.loss == pytest.approx(1 / 3)
    assert third.loss is None
    assert third.roc_auc is None


def test_a_round_has_the_devices_own_values_beside(log: Log, db: sqlite3.Connection) -> None:
    train(log, 1, base_loss=1.0)
    db.execute("UPDATE rounds SET local_loss = 0.25, local_accuracy = 0.75, local_roc_auc = 0.5")
    [one] = progress.trained(db, "main")
    assert (one.local_loss, one.local_accuracy, one.local_roc_auc) == (0.25, 0.75, 0.5)


def test_open_rounds_other_lineages_and_older_epochs_are_left_out(log: Log, db: sqlite3.Connection) -> None:
    train(log, 1, base_loss=1.0)
    log.federation("floe", "main", 2, "plaintext")
    train(log, 1, base_loss=0.125, epoch=2)
    log.open_round(Phase("main", 2, 2, "train"), "model 1", Plan(), EVERYBODY, DEVICES)
    assert [(one.round, one.bytes_up) for one in progress.trained(db, "main")] == [(1, 100)]
    assert progress.trained(db, "other") == ()


def test_bytes_and_seconds_are_those_of_all_phases_of_a_round_and_figures_those_of_its_training(
    log: Log, db: sqlite3.Connection
) -> None:
    for task, number in (("sums", 0), ("init", 0), ("evaluate", 1)):
        phase = Phase("main", 1, number, task)
        log.open_round(phase, "", Plan(), EVERYBODY, DEVICES)
        log.close_round(phase, up=1000, down=50, model=model(phase) if task == "init" else None)
    train(log, 1, base_loss=0.5)
    db.execute("UPDATE rounds SET seconds = 2.5")
    db.execute("UPDATE rounds SET accepted = 9 WHERE task != 'train'")
    begun, first = progress.trained(db, "main")
    assert (begun.round, begun.bytes_up, begun.bytes_down, begun.seconds) == (0, 2000, 100, 5.0)
    assert (begun.accepted, begun.loss, begun.local_loss) == (0, None, None)
    assert (first.round, first.bytes_up, first.bytes_down, first.seconds) == (1, 1100, 57, 5.0)
    assert first.accepted == 2


def test_the_rounds_are_read_from_an_index_and_not_with_the_names_of_all_devices(db: sqlite3.Connection) -> None:
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {progress.ROUNDS}", {"lineage": "main"})]
    assert any("USING COVERING INDEX rounds_figures" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


def test_a_pulse_counts_the_devices_and_says_whether_an_aggregator_ever_began(log: Log, db: sqlite3.Connection) -> None:
    for device in DEVICES:
        log.pin(device, "key")
    db.execute("UPDATE devices SET state = 'training' WHERE device = 'a'")
    found = pulse.pulse(db, "main")
    assert (found.begun, found.known, found.here, found.standing, found.broker_heard) == (True, 2, 1, None, None)
    assert not pulse.pulse(db, "other").begun


def test_the_brokers_figures_are_told_by_their_topics() -> None:
    rows = {
        "version": "mosquitto version 2.0.18", "clients/connected": "4", "load/messages/received/1min": "60.1",
        "publish/messages/dropped": "0", "connection/plant-b/state": "1", "connection/plant-c/state": "0",
        "connection/x/other": "1",
    }  # fmt: skip
    figures = [network.Figure(f"$SYS/broker/{topic}", value, f"t{n}") for n, (topic, value) in enumerate(rows.items())]
    told = network.broker_figures(figures)
    assert (told.version, told.clients, told.received_per_min) == ("mosquitto version 2.0.18", "4", "60.1")
    assert told.bridges == {"plant-b": True, "plant-c": False}
    assert (told.heard, told.uptime) == ("t6", "")
    assert network.broker_figures([]).heard is None


def test_devices_come_with_what_was_heard_of_them(log: Log, db: sqlite3.Connection) -> None:
    for device in DEVICES:
        log.pin(device, "key")
    db.execute("INSERT INTO vitals (id, member, time) VALUES (7, 'b', '2026-01-01T00:00:00.000Z')")
    db.execute("UPDATE devices SET vitals = 7 WHERE device = 'b'")
    assert [(one.device, one.told) for one in network.devices(db)] == [("a", None), ("b", "2026-01-01T00:00:00.000Z")]


def test_an_operator_with_two_keys_is_one(db: sqlite3.Connection) -> None:
    for key, seen in (("k1", "2026-01-01T00:00:00.000Z"), ("k2", "2026-02-01T00:00:00.000Z")):
        db.execute("INSERT INTO operators VALUES ('ann', ?, 1, 1, '', '', ?)", (key, seen))
    assert network.operators(db) == (network.Operator("ann", "2026-02-01T00:00:00.000Z"),)
