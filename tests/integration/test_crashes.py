"""Processes killed in mid-round and started again: the round ends, with the models of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.broker import broker_on
from helpers.federation import CHUNKS, Federation
from helpers.proxy import Proxy
from helpers.scene import Scene, Stall

from broker import run
from floe.messages import Status
from floe.signing import verify


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


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_device_that_is_gone_is_offline_in_the_log_and_for_whoever_subscribes_later(
    federation: Federation, end: str
) -> None:
    federation.aggregator()
    process = federation.client("a")
    federation.until("SELECT * FROM devices WHERE device = 'a' AND state = 'online'")
    getattr(process, end)()
    federation.until("SELECT * FROM devices WHERE device = 'a' AND state = 'offline'")
    heard = subprocess.run(
        ["mosquitto_sub", "-p", str(federation.port), "-t", "floe/floe/device/a/status", "-C", "1", "-W", "20"],
        capture_output=True,
        check=True,
    )
    status = verify(heard.stdout.rstrip(b"\n"), Status)
    assert (status.sender, status.state) == ("a", "offline")
