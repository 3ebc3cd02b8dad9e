"""Who is waited for and what becomes of the late: real processes, a trainer that is held where the test wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from helpers.federation import Federation
from helpers.plain import SECTIONS
from helpers.proxy import Proxy
from helpers.scene import Stall

from floe import weights

CLOSED = "SELECT * FROM rounds WHERE round = ? AND task = 'train' AND state = 'closed'"
ACCEPTED = "SELECT * FROM updates WHERE device = ? AND round = ? AND task = 'train' AND outcome = 'accepted'"


def configure(federation: Federation, *, model: str = "plain", **rounds: Any) -> None:
    sections = {**SECTIONS, "plan": {**SECTIONS["plan"], "model": model}, "rounds": {"grace_s": 0.0, **rounds}}
    federation.configure(sections)


def hold(federation: Federation, device: str, round_: int) -> Path:
    path = federation.folder / f"hold-{device}-{round_}"
    path.touch()
    return path


def late_in_round_one(federation: Federation, **rounds: Any) -> tuple[Path, Path]:
    """a closes round 1 alone while b is still at it; in round 2 both are held."""
    configure(federation, model="held", count=2, quorum=1, **rounds)
    gate, a_two = hold(federation, "b", 1), hold(federation, "a", 2)
    hold(federation, "b", 2)
    federation.aggregator()
    b = federation.client("b")
    federation.until("SELECT * FROM devices WHERE device = 'b'")
    federation.client("a")
    federation.wait(lambda: "global model" in b.said(), "b was to begin round 1")
    federation.until(CLOSED, 1)
    federation.wait(lambda: "round 2: train, open" in b.said(), "b was to hear of round 2")
    return gate, a_two


def test_a_late_update_is_merged_into_the_open_round_and_weighs_less(federation: Federation) -> None:
    gate, a_two = late_in_round_one(federation, late="merge")
    gate.unlink()
    assert federation.until(ACCEPTED, "b", 1)["merged"] == 2
    a_two.unlink()
    federation.until(CLOSED, 2)
    federation.wait(lambda: (federation.folder / "models/devices/b.safetensors").exists(), "b's upload was to be kept")
    zero, one, two = (weights.read(federation.model(n)) for n in (0, 1, 2))
    a, b = federation.upload("a"), federation.upload("b")
    for name in one:
        moved = one[name].astype(float) + 2**-0.5 * b[name].astype(float) - 2**-0.5 * zero[name].astype(float)
        expected = (40.0 * a[name].astype(float) + 40.0 * moved.astype(np.float32).astype(float)) / 80
        assert two[name].tolist() == expected.astype(np.float32).tolist()


def test_a_late_update_is_dropped_where_the_operator_wants_that(federation: Federation) -> None:
    gate, a_two = late_in_round_one(federation, late="drop")
    gate.unlink()
    a_two.unlink()
    federation.until(CLOSED, 2)
    assert federation.query(ACCEPTED, "b", 1) == []


def test_a_dead_device_holds_nobody_up(federation: Federation) -> None:
    configure(federation, model="held", count=3, devices=3)
    hold(federation, "c", 1)
    federation.aggregator()
    for device in "ab":
        federation.client(device)
    c = federation.client("c")
    federation.until("SELECT * FROM devices WHERE device = 'c' AND state = 'training'")
    federation.until(ACCEPTED, "a", 1)
    c.kill()
    federation.finish()
    assert federation.until(CLOSED, 1)["accepted"] == 2


def test_below_its_quorum_a_round_may_be_void(federation: Federation) -> None:
    configure(federation, model="held", count=2, quorum=2, below_quorum="void", deadline_s=2.0)
    hold(federation, "b", 1)
    federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.finish()
    assert federation.until("SELECT state FROM rounds WHERE round = 1 AND task = 'train'")["state"] == "void"
    assert sorted(federation.models()) == [0, 2]


def test_a_device_that_slept_through_ten_rounds_goes_on_with_the_newest_model(federation: Federation) -> None:
    configure(federation, model="held", count=13, quorum=1)
    hold(federation, "a", 12)
    federation.aggregator()
    federation.client("a")
    b = federation.client("b")
    federation.until("SELECT * FROM rounds")
    b.kill()
    federation.until("SELECT * FROM rounds WHERE round = 12 AND state = 'open'")
    federation.client("b")
    federation.until(ACCEPTED, "b", 12)
    (federation.folder / "hold-a-12").unlink()
    federation.finish()
    base = federation.until("SELECT base_sha256 AS base FROM rounds WHERE round = 12 AND task = 'train'")["base"]
    assert base == federation.models()[11]


def test_a_target_ends_the_rounds_early_with_an_evaluation(federation: Federation) -> None:
    configure(federation, count=50, metric="accuracy", target=0.9)
    aggregator = federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.finish()
    last = federation.until("SELECT max(round) AS round FROM rounds WHERE task = 'evaluate' AND state = 'closed'")
    assert last["round"] < 50
    assert "has reached the target 0.9" in federation.until("SELECT text FROM events WHERE kind = 'enough'")["text"]
    aggregator.kill()
    federation.aggregator()
    federation.until("SELECT * FROM devices WHERE device = 'a' AND state != 'unknown'")
    assert max(federation.models()) == last["round"]


def test_no_improvement_ends_the_rounds(federation: Federation) -> None:
    sections = {**SECTIONS, "plan": {**SECTIONS["plan"], "learning_rate": 1e-30}}
    federation.configure({**sections, "rounds": {"count": 50, "metric": "loss", "patience": 3}})
    federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.finish()
    assert max(federation.models()) == 4  # models 0 to 3 are alike, which the fourth round tells


def test_asynchronously_every_update_makes_a_model(federation: Federation) -> None:
    configure(federation, model="held", mode="asynchronous", count=6)
    gate = hold(federation, "b", 1)
    for device, round_ in (("a", 4), ("b", 4), ("b", 5), ("b", 6)):
        hold(federation, device, round_)
    aggregator = federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.until("SELECT * FROM rounds WHERE round = 4 AND task = 'train' AND state = 'open'")
    aggregator.kill()
    federation.aggregator()
    gate.unlink()
    stale = federation.until(ACCEPTED, "b", 1)
    assert stale["merged"] == 4
    (federation.folder / "hold-a-4").unlink()
    federation.finish()
    merged = federation.query(
        "SELECT merged, count(*) AS n FROM updates WHERE task = 'train' AND outcome = 'accepted' GROUP BY merged"
    )
    assert [(row["merged"], row["n"]) for row in merged] == [(n, 1) for n in range(1, 7)]
    three, four, b = weights.read(federation.model(3)), weights.read(federation.model(4)), federation.upload("b")
    share = 0.6 * (1 + 3) ** -0.5
    for name in four:
        mixed = (1 - share) * three[name].astype(float) + share * b[name].astype(float)
        assert four[name].tolist() == mixed.astype(np.float32).tolist()


def test_asynchronously_a_slow_device_is_merged_however_far_it_is_behind(federation: Federation) -> None:
    configure(federation, model="held", mode="asynchronous", count=100_000)
    gate = hold(federation, "b", 1)
    federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.until("SELECT * FROM rounds WHERE round = 30")
    gate.unlink()
    assert federation.until(ACCEPTED, "b", 1)["merged"] > 29


def test_asynchronously_a_share_of_the_devices_cannot_be_asked_for(federation: Federation) -> None:
    configure(federation, mode="asynchronous", fraction=0.5)
    aggregator = federation.aggregator()
    assert aggregator.wait() == 2
    assert "fraction" in aggregator.said()


def test_with_a_share_of_the_devices_late_updates_hang_nothing(federation: Federation) -> None:
    configure(federation, late="merge", fraction=0.4, count=6, devices=3, grace_s=1.0)
    federation.aggregator()
    for device in "abc":
        federation.client(device)
    federation.finish()
    assert len(federation.models()) == 7
    took_part = federation.query("SELECT round, count(*) AS n FROM updates WHERE task = 'train' GROUP BY round")
    assert {row["n"] for row in took_part} == {1}


def test_a_device_that_cannot_use_the_model_says_so_once_in_a_round(federation: Federation) -> None:
    sections = {**SECTIONS, "plan": {**SECTIONS["plan"], "hidden": [500]}}  # 2 MB
    federation.configure({**sections, "rounds": {"count": 2, "grace_s": 0.5, "devices": 3}})
    federation.aggregator()
    for device in "ab":
        federation.client(device)
    federation.features("c")
    env = {"FLOE_SECURITY_MAX_TRANSFER_MB": "1"}
    federation.start("c", "client", "--id", "c", "--data", "features/c", env=env)
    federation.finish()
    said = federation.query("SELECT task, round, outcome, reason FROM updates WHERE device = 'c' AND task != 'init'")
    assert 1 <= len(said) <= 3
    assert {(row["outcome"], row["reason"]) for row in said} == {("rejected", "device")}


def test_an_update_that_its_device_has_lost_does_not_hold_up_the_next(federation: Federation) -> None:
    sections = {**SECTIONS, "plan": {**SECTIONS["plan"], "model": "held", "hidden": [500]}}
    rounds = {"count": 2, "quorum": 2, "late": "merge", "grace_s": 600.0}
    federation.configure({**sections, "rounds": rounds})
    stall, gate = Stall(), hold(federation, "a", 2)
    with Proxy(federation.port, stall) as proxy:
        federation.aggregator()
        federation.client("a")
        b = federation.client("b", port=proxy.port)
        federation.wait(lambda: stall.stalled, "b's upload was to hang")
        b.kill()
        assert asked(federation, "key", "operator") == 0
        assert asked(federation, "round", "stop") == 0
        assert asked(federation, "round", "start") == 0
        federation.until("SELECT * FROM rounds WHERE round = 2 AND state = 'open'")
        for record in (federation.folder / "state/device-b/outbox").glob("*.json"):
            record.write_bytes(b"damaged")
        stall.released = True
        federation.client("b", port=proxy.port)
        federation.until(ACCEPTED, "b", 2)
        gate.unlink()
        federation.until(CLOSED, 2)
        lost = federation.until(
            "SELECT outcome, reason FROM updates WHERE device = 'b' AND round = 1 AND task = 'train'"
        )
    assert (lost["outcome"], lost["reason"]) == ("superseded", "newer")


def asked(federation: Federation, *arguments: str) -> int:
    return federation.start(arguments[0], *arguments).wait()
