"""`floe check` beside a federation that works, after it was killed, and after a disk has damaged it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.damage import DAMAGE
from helpers.federation import Federation
from helpers.plain import SECTIONS
from helpers.process import Process
from helpers.proxy import Proxy
from helpers.scene import ACCEPTED, Stall

from floe import weights

PLAIN = {**SECTIONS, "plan": {**SECTIONS["plan"], "hidden": [500]}}  # 31 chunks


def check(federation: Federation) -> tuple[int, str]:
    """The exit code of `floe check`, and what this call said."""
    name = f"check-{len(federation.processes)}"
    process = federation.start(name, "check")
    return process.wait(), process.said()


@pytest.mark.parametrize("policy", [{}, {"late": "merge", "quorum": 1}, {"mode": "asynchronous"}], ids=str)
def test_beside_rounds_that_open_and_close_it_gives_no_false_alarm(
    federation: Federation, policy: dict[str, object]
) -> None:
    federation.configure({**PLAIN, "rounds": {"count": 100_000, "devices": 2, **policy}})
    federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    last = 0
    for _ in range(6):
        last = federation.until("SELECT * FROM rounds WHERE state = 'closed' AND round > ?", last)["round"]
        code, said = check(federation)
        assert (code, "the aggregator is running" in said) == (0, True), said
    for process in federation.processes[:3]:
        process.kill()
    code, said = check(federation)
    assert code == 0, said
    assert "running" not in said


def in_mid_round(federation: Federation, stall: Stall, port: int) -> tuple[Process, Process]:
    """The aggregator, killed when it has a's update of round 1 and a third of b's; and b, killed too."""
    federation.configure({**PLAIN, "rounds": {"count": 1, "devices": 2}})
    aggregator = federation.aggregator()
    federation.client("a")
    b = federation.client("b", port=port)
    federation.until(ACCEPTED, "a", 1)
    federation.wait(lambda: stall.stalled, "b's upload was to hang")
    aggregator.kill()
    b.kill()
    stall.released = True
    return aggregator, b


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_spool_is_found_and_the_round_ends_without_that_update(federation: Federation, damage: str) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        in_mid_round(federation, stall, proxy.port)
        path = federation.folder / "state/aggregator-main/spool/1-1-train/a.safetensors"
        DAMAGE[damage](path)
        code, said = check(federation)
        assert code == 8, said
        assert f"damaged  {path}: " in said
        aggregator = federation.aggregator()
        federation.client("b", port=proxy.port)
        federation.finish()
        aggregator.terminate()
        aggregator.end()
    rows = federation.query("SELECT device, outcome, reason FROM updates WHERE task = 'train' ORDER BY device")
    assert [tuple(row.values()) for row in rows] == [("a", "rejected", "storage"), ("b", "accepted", "")]
    assert federation.query("SELECT * FROM events WHERE level = 'error' AND reason = 'storage' AND device = 'a'")
    mean, upload = federation.model(1), federation.upload("b")
    assert {name: array.tobytes() for name, array in upload.items()} == _arrays(mean)
    code, said = check(federation)
    assert code == 0, said


@pytest.mark.parametrize("damage", ["flipped", "empty", "folder"])
def test_a_damaged_outbox_is_found_and_the_round_done_again(federation: Federation, damage: str) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        in_mid_round(federation, stall, proxy.port)
        [path] = (federation.folder / "state/device-b/outbox").glob("*.chunks")
        DAMAGE[damage](path)
        code, said = check(federation)
        assert code == 8, said
        assert f"damaged  {path.with_suffix('.json')}: " in said
        federation.aggregator()
        b = federation.client("b", port=proxy.port)
        federation.finish()
    assert "set aside" in b.said()
    accepted = federation.query(
        "SELECT device FROM updates WHERE task = 'train' AND outcome = 'accepted' ORDER BY device"
    )
    assert [row["device"] for row in accepted] == ["a", "b"]


def _arrays(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in weights.read(path).items()}
