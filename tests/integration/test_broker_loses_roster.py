"""A broker that loses everything retained in the midst of enrolment: members, and who waits, come through."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from helpers import people
from helpers.broker import broker_on, free
from helpers.federation import Federation

ENDLESS = {"rounds": {"count": 100_001, "devices": 1, "quorum": 1, "grace_s": 600.0, "pause_s": 0.2}}


def test_members_and_who_waits_come_through_a_broker_that_has_lost_all(tmp_path: Path) -> None:
    port = free()
    federation = Federation(tmp_path / "federation", port)
    people.found(federation, ENDLESS)
    try:
        with broker_on(tmp_path / "broker", port):
            federation.aggregator()
            people.let_in(federation, "ann")
            people.trains(federation, "ann")
            people.join(federation, "bob")
            waiting = federation.client("bob")
            federation.wait(lambda: "waiting until an operator lets 'bob' in" in waiting.said(), "bob waits")
        with broker_on(tmp_path / "second", port):
            people.trains(federation, "ann")
            assert people.states(federation) == {"ann": "approved", "bob": "pending"}
            os.kill(waiting.pid, signal.SIGSTOP)
            people.order(federation, "devices", "approve", "bob", "--yes")
        with broker_on(tmp_path / "third", port):  # bob's entry is gone before bob could read it
            people.trains(federation, "ann")
            os.kill(waiting.pid, signal.SIGCONT)
            people.trains(federation, "bob")
            assert not (federation.folder / "state" / "device-bob" / "join.json").exists()
            people.order(federation, "devices", "revoke", "ann")
            people.trains(federation, "bob")
    finally:
        os.kill(waiting.pid, signal.SIGCONT)
        federation.close()


def test_a_revoked_device_that_was_away_is_told_by_a_broker_that_has_lost_all(tmp_path: Path) -> None:
    port = free()
    federation = Federation(tmp_path / "federation", port)
    people.found(federation, ENDLESS)
    try:
        with broker_on(tmp_path / "broker", port):
            federation.aggregator()
            people.let_in(federation, "bob")
            ann = people.let_in(federation, "ann")
            people.trains(federation, "ann")
            ann.kill()
            people.order(federation, "devices", "revoke", "ann")
        with broker_on(tmp_path / "second", port):
            people.trains(federation, "bob")
            again = federation.client("ann")
            assert again.wait() == 5
            assert "'ann' has been revoked by an operator" in again.said()
    finally:
        federation.close()


def test_a_newcomer_fetches_the_model_of_an_epoch_that_an_operator_has_begun(tmp_path: Path) -> None:
    port = free()
    federation = Federation(tmp_path / "federation", port)
    people.found(federation, ENDLESS)
    try:
        with broker_on(tmp_path / "broker", port):
            federation.aggregator()
            ann = people.let_in(federation, "ann")
            people.trains(federation, "ann")
            ann.kill()
            assert "epoch 2" in people.order(federation, "federation", "restored")
            people.let_in(federation, "bob")
            people.trains(federation, "bob")
            federation.client("ann")
            people.trains(federation, "ann")
    finally:
        federation.close()
