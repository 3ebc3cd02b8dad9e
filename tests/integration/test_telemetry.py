"""How devices are, and what they log, on its way from a real device into the log of a real aggregator."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from helpers.arena import arena_on
from helpers.federation import Federation, Sections
from helpers.listening import heard, listening

from broker.render import ACL
from broker.run import Mosquitto

OFTEN: Sections = {"device": {"telemetry_s": 1.0}, "rounds": {"count": 1}}
DONE = "SELECT * FROM journal WHERE device = ? AND text LIKE 'train 1 done: 40 rows%'"
COLUMNS = (b"process_bytes", b"memory_percent", b"train 1 done")  # of what is sealed


def test_devices_and_the_aggregator_tell_how_they_are(federation: Federation) -> None:
    federation.configure(OFTEN)
    federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.finish()
    for device in ("a", "b"):
        federation.until("SELECT * FROM vitals WHERE member = ? AND model_sha256 IS NOT NULL LIMIT 1", device)
        federation.until(DONE, device)
        rows = federation.query("SELECT * FROM vitals WHERE member = ? ORDER BY id", device)
        assert 0 < rows[0]["process_bytes"] < 2**34
        assert all(0 <= row["disk_percent"] <= 100 and 0 < row["memory_percent"] <= 100 for row in rows)
        own = "SELECT v.member FROM devices d JOIN vitals v ON v.id = d.vitals WHERE d.device = ?"
        assert federation.query(own, device) == [{"member": device}]
    assert federation.until("SELECT * FROM vitals WHERE member = 'lineage/main'")["uptime_s"] > 0
    standing = federation.until("SELECT * FROM standing WHERE stage = 'finished'")
    assert (standing["round"], standing["task"], standing["online"]) == (1, "evaluate", 2)
    federation.until("SELECT * FROM broker WHERE topic = '$SYS/broker/version' AND value LIKE 'mosquitto version%'")
    assert federation.query("SELECT * FROM events WHERE kind = 'refused'") == []


@pytest.mark.parametrize("secret", [True, False], ids=["shared key", "plaintext"])
def test_a_listener_reads_what_a_device_logs_only_in_plaintext(
    federation: Federation, tmp_path: Path, secret: bool
) -> None:
    if not secret:
        (federation.folder / "secret.key").unlink()
    federation.configure(OFTEN)
    with listening(federation, tmp_path / "heard"):
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device)
        federation.until(DONE, "a")
    told = [payload for topic, payload in heard(tmp_path / "heard") if topic.endswith("/a/main/telemetry")]
    assert {json.loads(payload)["core"]["kind"] for payload in told} == {"telemetry"}
    everything = b"".join(told)
    assert [canary in everything for canary in COLUMNS] == [not secret] * len(COLUMNS)


def test_enrolled_what_a_device_logs_is_sealed_to_the_aggregator_and_not_for_the_group(
    template: Path, tmp_path: Path
) -> None:
    with arena_on(tmp_path, template, defended=True, sections=OFTEN) as arena:
        arena.aggregator()
        for device in ("a", "b"):
            arena.client(device)
        arena.federation.until(DONE, "a")
        told = [message.payload for message in arena.proxy.kept if message.topic.endswith("/a/main/telemetry")]
        assert {json.loads(payload)["envelope"]["wrap"] for payload in told} == {"hpke"}
        assert not any(canary in bytes(arena.proxy.tape) for canary in COLUMNS)


def test_a_device_that_shall_not_tell_says_nothing_of_itself(federation: Federation, tmp_path: Path) -> None:
    federation.configure({**OFTEN, "device": {"telemetry_s": 0.0}})
    with listening(federation, tmp_path / "heard"):
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device)
        federation.finish()
    assert not any(topic.endswith("/telemetry") for topic, _ in heard(tmp_path / "heard"))
    assert federation.query("SELECT * FROM journal") == []


def test_a_warning_of_a_device_is_in_the_log_although_its_lines_are_not_wanted(federation: Federation) -> None:
    federation.configure({**OFTEN, "device": {"telemetry_s": 600.0, "journal": "warning"}})
    (federation.folder / "secret.key").unlink()
    federation.aggregator()
    federation.client("a")
    federation.until("SELECT * FROM journal WHERE device = 'a' AND level = 'warning' AND text LIKE '%PLAINTEXT%'")
    assert federation.query("SELECT * FROM journal WHERE level = 'info'") == []


def test_a_broker_that_keeps_its_own_figures_to_itself_changes_nothing(
    broker: Mosquitto, federation: Federation
) -> None:
    acl = broker.folder / ACL
    acl.write_text("".join(line for line in acl.read_text().splitlines(keepends=True) if "$SYS" not in line))
    os.kill(broker.pid, signal.SIGHUP)
    federation.configure(OFTEN)
    federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.finish()
    federation.until(DONE, "a")
    federation.until("SELECT * FROM standing WHERE stage = 'finished'")
    assert federation.query("SELECT * FROM broker") == []
    assert federation.query("SELECT * FROM events WHERE level != 'info' AND kind != 'late'") == []
