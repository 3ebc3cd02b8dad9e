"""Processes killed in mid-round and started again: the round ends, with the models of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from broker import run
from floe.messages import Status
from floe.signing import verify
from helpers.broker import broker_on
from helpers.federation import BIG, CHUNKS, Federation
from helpers.process import Process
from helpers.proxy import DROP, PASS, Message, Proxy, Verdict

ACCEPTED = "SELECT * FROM updates WHERE device = ? AND round = ? AND task = 'train' AND outcome = 'accepted'"


class Stall:
    """A rule: the first ten chunks of a device's first training round pass, then none until `released`."""

    def __init__(self) -> None:
        self.passed = 0
        self.stalled = False
        self.released = False

    def __call__(self, message: Message) -> Verdict:
        if self.released or not message.upward or "/main/1/chunk/" not in message.topic:
            return PASS
        self.passed += 1
        self.stalled = self.passed > 10
        return DROP if self.stalled else PASS


class Scene:
    """A federation in the middle of round 1: a has its answer, b's upload hangs after ten chunks."""

    def __init__(self, federation: Federation, stall: Stall, proxy: Proxy) -> None:
        federation.configure(BIG)
        self.federation, self.stall, self.proxy = federation, stall, proxy
        self.aggregator = federation.aggregator()
        self.a = federation.client("a")
        self.b = self.start_b()
        self.before = federation.until(ACCEPTED, "a", 1)
        federation.wait(lambda: stall.stalled, "b's upload was to hang")

    def start_b(self) -> Process:
        return self.federation.client("b", port=self.proxy.port)

    def go_on(self, undisturbed: dict[int, str]) -> None:
        self.stall.released = True
        self.federation.finish()
        assert self.federation.models() == undisturbed
        assert self.federation.query(ACCEPTED, "a", 1) == [self.before], "what was accepted stays as it was"
        accepted = self.federation.query("SELECT device, round, task FROM updates WHERE outcome = 'accepted'")
        assert len(accepted) == len({tuple(row.values()) for row in accepted}), "accepted twice"


def test_a_killed_aggregator_goes_on_where_it_was(federation: Federation, undisturbed: dict[int, str]) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        scene = Scene(federation, stall, proxy)
        scene.aggregator.kill()
        federation.aggregator()
        scene.go_on(undisturbed)


def test_a_killed_aggregator_asks_only_for_the_chunks_it_lacks(
    federation: Federation, undisturbed: dict[int, str]
) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        scene = Scene(federation, stall, proxy)
        scene.aggregator.kill()
        federation.aggregator()
        scene.go_on(undisturbed)
    _, passed = proxy.count(upward=True, containing="/main/1/chunk/")
    assert len(passed) == CHUNKS
    assert max(passed.values()) == 1, "a chunk that was on the aggregator's disk was sent again"


def test_a_killed_device_sends_what_it_had_done(federation: Federation, undisturbed: dict[int, str]) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        scene = Scene(federation, stall, proxy)
        scene.b.kill()
        federation.until("SELECT * FROM devices WHERE device = 'b' AND state = 'offline'")
        trained = scene.b.said().count("train 1 done")
        scene.b = scene.start_b()
        scene.go_on(undisturbed)
    assert trained == 1
    assert scene.b.said().count("train 1 done") == 1, "what was in the outbox was computed again"


def test_a_killed_broker_that_comes_back_ends_the_round(
    federation: Federation, broker: run.Mosquitto, tmp_path: Path, undisturbed: dict[int, str]
) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        scene = Scene(federation, stall, proxy)
        os.kill(broker.pid, signal.SIGKILL)
        broker.stop()
        with broker_on(tmp_path / "broker", broker.port):
            scene.go_on(undisturbed)
            federation.close()


def test_everything_killed_at_once_goes_on(
    federation: Federation, broker: run.Mosquitto, tmp_path: Path, undisturbed: dict[int, str]
) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        scene = Scene(federation, stall, proxy)
        for process in (scene.aggregator, scene.a, scene.b):
            process.kill()
        os.kill(broker.pid, signal.SIGKILL)
        broker.stop()
        with broker_on(tmp_path / "broker", broker.port):
            scene.start_b()
            federation.client("a")
            federation.aggregator()
            scene.go_on(undisturbed)
            federation.close()


def test_ctrl_c_in_mid_round_ends_with_130_and_the_restart_goes_on(
    federation: Federation, undisturbed: dict[int, str]
) -> None:
    stall = Stall()
    with Proxy(federation.port, stall) as proxy:
        scene = Scene(federation, stall, proxy)
        assert scene.b.interrupt() == 130
        assert scene.aggregator.interrupt() == 130
        assert scene.a.interrupt() == 130
        for process in (scene.aggregator, scene.a, scene.b):
            assert "Traceback" not in process.said()
        federation.aggregator()
        federation.client("a")
        scene.start_b()
        scene.go_on(undisturbed)


@pytest.mark.parametrize(("end", "state"), [("kill", "offline"), ("terminate", "offline")])
def test_a_device_that_is_gone_is_offline_in_the_log_and_for_whoever_subscribes_later(
    federation: Federation, end: str, state: str
) -> None:
    federation.aggregator()
    process = federation.client("a")
    federation.until("SELECT * FROM devices WHERE device = 'a' AND state = 'online'")
    getattr(process, end)()
    federation.until("SELECT * FROM devices WHERE device = 'a' AND state = ?", state)
    heard = subprocess.run(
        ["mosquitto_sub", "-p", str(federation.port), "-t", "floe/floe/device/a/status", "-C", "1", "-W", "20"],
        capture_output=True,
        check=True,
    )
    status = verify(heard.stdout.rstrip(b"\n"), Status)
    assert (status.sender, status.state) == ("a", state)
