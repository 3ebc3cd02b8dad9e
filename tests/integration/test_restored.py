"""An aggregator from a backup: the broker tells it what it has lost of the roster, an operator lets devices follow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.arena import Arena, arena_on
from helpers.enrolment import Enrolled

KEPT = ("log", "models", "state/aggregator-main")


@pytest.fixture
def arena(template: Path, tmp_path: Path) -> Iterator[Arena]:
    with arena_on(tmp_path, template, defended=True) as made:
        yield made


def test_an_aggregator_from_a_backup_catches_up_and_devices_follow_its_new_epoch(arena: Arena, tmp_path: Path) -> None:
    federation = arena.federation
    assert isinstance(federation, Enrolled)
    first = arena.aggregator()
    a, b = arena.client("a"), arena.client("b")
    federation.finish()
    first.interrupt()
    for folder in KEPT:
        shutil.copytree(federation.folder / folder, tmp_path / "backup" / folder)
    second = arena.aggregator()
    federation.order("devices", "revoke", "c")
    with arena.round() as number:
        pass
    assert arena.accepted("a", number)
    second.interrupt()

    for folder in KEPT:
        shutil.rmtree(federation.folder / folder)
        shutil.copytree(tmp_path / "backup" / folder, federation.folder / folder)
    assert not arena.accepted("a", number)
    third = arena.aggregator()
    federation.wait(lambda: "the roster is complete again, version 7" in third.said(), "it was to catch up")
    assert federation.members()["c"] == "revoked", "what an operator decided after the backup counts"

    assert "'main' goes on in epoch 2" in federation.order("federation", "restored")
    arena.order("start")
    for device in ("a", "b"):
        sql = "SELECT * FROM updates WHERE device = ? AND epoch = 2 AND task = 'train' AND outcome = 'accepted'"
        federation.until(sql, device)
    assert a.running
    assert b.running
