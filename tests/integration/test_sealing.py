"""Suites on a real wire: what a stranger with mosquitto_sub sees, and what a wrong or missing key does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.federation import Federation
from helpers.listening import heard, listening
from helpers.process import Process

from floe.identity import new_secret
from floe.keyring import suite_here

WARNING = "weights and metrics travel in PLAINTEXT"
SAMPLES = 137  # of device a: a number that stands nowhere else


def run_with(federation: Federation, suite: str, out: Path) -> list[tuple[str, bytes]]:
    federation.configure({"security": {"suite": suite}, "rounds": {"count": 1}})
    federation.features("a", rows=SAMPLES)
    with listening(federation, out):
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device)
        federation.finish()
    assert federation.query("SELECT DISTINCT suite FROM updates") == [{"suite": suite}]
    return heard(out)


def all_but_chunks_is_json(messages: list[tuple[str, bytes]]) -> None:
    kinds = set()
    for topic, payload in messages:
        if "/chunk/" not in topic:
            kinds.add(json.loads(payload)["type"])
    assert kinds == {"status", "round", "manifest", "want", "answer"}
    assert any("/chunk/" in topic for topic, _ in messages)


@pytest.mark.parametrize("suite", ["chacha20-poly1305", "aes-256-gcm", "fernet"])
def test_a_listener_sees_json_and_chunks_but_no_metrics_and_no_weights(
    federation: Federation, tmp_path: Path, suite: str
) -> None:
    messages = run_with(federation, suite, tmp_path / "heard")
    all_but_chunks_is_json(messages)
    everything = b"".join(payload for _, payload in messages)
    for secret in (b'"samples"', b"accuracy", b"__metadata__", b"data_offsets", b"scaling.mean"):
        # The round document, which all may read, has "report", but no metric.
        assert secret not in everything, secret
    # With its colon: no base64 has one, and three digits alone stand in one text of a thousand by chance.
    assert not any(f":{SAMPLES}" in json.loads(p)["core"]["meta"] for t, p in messages if "manifest" in t)
    assert WARNING not in federation.said()


def test_devices_that_sign_with_rsa_take_part_beside_an_aggregator_that_does_not(federation: Federation) -> None:
    federation.configure({"security": {"signatures": "rsa-2048-pss"}, "rounds": {"count": 1}})
    federation.aggregator()
    rsa = federation.client("a")
    federation.wait(lambda: "suite " in rsa.said(), "it was to start")
    federation.configure({"security": {"signatures": "ed25519"}, "rounds": {"count": 1}})
    federation.client("b")
    federation.finish()
    kinds = {row["device"]: len(row["key"]) for row in federation.query("SELECT device, key FROM devices")}
    assert kinds == {"a": 392, "b": 43}
    trained = federation.query("SELECT device, outcome FROM updates WHERE task = 'train' ORDER BY device")
    assert trained == [{"device": "a", "outcome": "accepted"}, {"device": "b", "outcome": "accepted"}]


def test_without_a_key_all_is_readable_and_every_process_says_so(federation: Federation, tmp_path: Path) -> None:
    (federation.folder / "secret.key").unlink()
    messages = run_with(federation, "plaintext", tmp_path / "heard")
    all_but_chunks_is_json(messages)
    for process in federation.processes:
        assert WARNING in process.said(), process.log.stem
    reports = [json.loads(json.loads(p)["core"]["meta"]) for t, p in messages if "/device/a/main/1/manifest" in t]
    assert SAMPLES in [report["samples"] for report in reports]
    assert all(report["after"]["accuracy"] >= 0 for report in reports if report["after"])
    assert any(b"data_offsets" in payload for topic, payload in messages if "/chunk/" in topic)
    assert federation.query("SELECT * FROM events WHERE kind = 'plaintext'")


def test_a_device_with_another_secret_key_is_told_and_the_rounds_go_on_without_it(federation: Federation) -> None:
    federation.features("wrong")
    new_secret(federation.folder / "wrong.key")
    other = federation.configure({"security": {"secret_key": "wrong.key"}}, name="wrong.toml")
    federation.configure({"rounds": {"count": 1, "devices": 1}})
    federation.aggregator()
    wrong = federation.start("wrong", "client", "--config", str(other), "--id", "wrong", "--data", "features/wrong")
    row = federation.until("SELECT * FROM events WHERE device = 'wrong' AND reason = 'unknown-key'")
    assert "does not prove that it knows our secret.key" in row["text"]
    federation.wait(lambda: "the same secret.key, or both none?" in wrong.said(), "the device was to be told")
    federation.client("a")
    federation.finish()
    assert federation.query("SELECT DISTINCT device FROM updates") == [{"device": "a"}]


def start(federation: Federation, who: str) -> Process:
    return federation.aggregator() if who == "aggregator" else federation.client(who)


@pytest.mark.parametrize("who", ["aggregator", "a"])
def test_a_key_that_was_there_and_is_gone_stops_the_process(federation: Federation, who: str) -> None:
    process = start(federation, who)
    suite = "chacha20-poly1305" if who == "aggregator" else suite_here()
    federation.wait(lambda: f"suite {suite}" in process.said(), "it was to start")
    process.interrupt()
    (federation.folder / "secret.key").unlink()
    assert start(federation, who).wait() == 5
    assert "bring the key back" in process.said()


def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(federation: Federation) -> None:
    (federation.folder / "secret.key").chmod(0o644)
    process = federation.aggregator()
    assert process.wait() == 5
    assert "chmod 600" in process.said()
