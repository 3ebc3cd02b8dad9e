"""What `floe tail` says of what it hears: pure first, then the command on a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from broker.run import Mosquitto
from floe.identity import Identity
from floe.messages import Answer, Core, Envelope, Manifest, Message, Phase, Round, Status, Want
from floe.plan import Plan
from floe.session import Received, Session
from floe.settings import Mqtt
from floe.tail import _text
from floe.terminal import printable
from floe.topics import (
    AnswerTo,
    CurrentRound,
    DeviceChunk,
    DeviceManifest,
    DeviceStatus,
    DeviceTelemetry,
    Topic,
    WantTo,
)
from floe.transfer import name_of
from floe.watch import EVERY_S, MAX_KNOWN, Line, Watch

DEVICE = Identity("pump-1", Ed25519PrivateKey.generate())
OTHER = Identity("pump-1", Ed25519PrivateKey.generate())
AGGREGATOR = Identity("main", Ed25519PrivateKey.generate())
PHASE = Phase("main", 1, 3, "train")
CORE = Core(
    federation="floe", lineage="main", epoch=1, round=3, task="train", kind="update", sender="pump-1", base="0" * 64,
    suite="chacha20-poly1305", salt="0" * 32, commitment="", size=70_000, chunk_size=65_536,
    chunks=("a" * 64, "b" * 64), meta="sealed",
)  # fmt: skip
STATUS = DeviceStatus("floe", "pump-1")


def made(identity: Identity, kind: type[Message], **fields: Any) -> bytes:
    known = {"federation": "floe", "sender": identity.name, "key": identity.key, "proof": "", "seq": 1}
    return identity.sign(kind(**{**known, **fields}))


def heard(watch: Watch, topic: Topic | str, payload: bytes, now: float = 0.0, *, retained: bool = False) -> list[Line]:
    return watch.message(Received(str(topic), payload, 1, 1, retained), now)


def test_telemetry_is_told_by_its_kind_and_in_plaintext_by_its_beginning() -> None:
    fields = {"kind": "telemetry", "suite": "plaintext", "size": 0, "chunks": (), "meta": "{" + "a" * 60_000}
    told = Manifest(
        federation="floe", sender="pump-1", key=DEVICE.key, proof="", seq=1,
        core=msgspec.structs.replace(CORE, **fields), envelope=Envelope(to="main", wrap="none", key=""),
    )  # fmt: skip
    [line] = heard(Watch("floe"), DeviceTelemetry("floe", "pump-1", "main"), DEVICE.sign(told))
    assert line.text.startswith("telemetry ")
    assert line.text.endswith(", plaintext, {" + "a" * 499 + "...")
    assert line.signature.startswith("ok ")


def test_a_status_says_state_and_phase_and_that_the_key_is_new() -> None:
    watch, payload = Watch("floe"), made(DEVICE, Status, state="training", phase=PHASE)
    (line,) = heard(watch, STATUS, payload)
    assert (line.kind, line.sender, line.text) == ("status", "pump-1", "training, train 3")
    assert line.signature == f"ok {DEVICE.key[:8]}, first key seen"
    assert heard(watch, STATUS, payload)[0].signature == f"ok {DEVICE.key[:8]}"


def test_another_key_under_a_name_is_bad() -> None:
    watch = Watch("floe")
    heard(watch, STATUS, made(DEVICE, Status, state="online"))
    (line,) = heard(watch, STATUS, made(OTHER, Status, state="online"))
    assert line.signature.startswith("BAD unknown-key")


def test_an_altered_message_is_bad() -> None:
    payload = made(DEVICE, Status, state="online").replace(b"online", b"idle")
    assert heard(Watch("floe"), STATUS, payload)[0].signature.startswith("BAD signature")


def test_speaking_on_the_topic_of_another_is_bad() -> None:
    (line,) = heard(Watch("floe"), DeviceStatus("floe", "pump-2"), made(DEVICE, Status, state="online"))
    assert line.signature == "BAD not-for-us: 'pump-1' on the topic of 'pump-2'"
    (line,) = heard(Watch("floe"), STATUS, made(DEVICE, Status, state="online", federation="mine"))
    assert line.signature == "BAD not-for-us: federation 'mine'"


def test_a_manifest_says_what_it_announces() -> None:
    envelope = Envelope(to="main", wrap="shared", key="AA")
    payload = made(DEVICE, Manifest, core=CORE, envelope=envelope)
    (line,) = heard(Watch("floe"), DeviceManifest("floe", "pump-1", "main", 3), payload)
    assert line.text == f"update {name_of(CORE)[:12]}, train 3, 70.0 kB in 2 chunks, chacha20-poly1305"


def test_a_round_a_want_and_an_answer_in_words() -> None:
    watch = Watch("floe")
    order = made(AGGREGATOR, Round, phase=PHASE, state="open", base=None, plan=Plan(), seconds_left=12.0)
    assert heard(watch, CurrentRound("floe", "main"), order)[0].text == "train 3 open, without a model, 12 s left"
    ranges = tuple((n, n + 2) for n in range(0, 60, 10))
    want = made(AGGREGATOR, Want, to="pump-1", transfer="a" * 32, ranges=ranges)
    assert heard(watch, WantTo("floe", "main", "pump-1"), want)[0].text == (
        "asks pump-1 for chunks 0-1, 10-11, 20-21, 30-31 and 2 more ranges of aaaaaaaaaaaa"
    )
    fields = {
        "to": "pump-1",
        "to_key": DEVICE.key,
        "transfer": "a" * 32,
        "phase": PHASE,
        "outcome": "rejected",
        "reason": "weights",
    }
    answer = made(AGGREGATOR, Answer, **fields, detail="NaN at 3")
    assert heard(watch, AnswerTo("floe", "main", "pump-1"), answer)[0].text == (
        "to pump-1: train 3 rejected: weights: NaN at 3 (aaaaaaaaaaaa)"
    )


def test_chunks_are_counted_and_told_once_a_second_and_when_complete() -> None:
    watch, name = Watch("floe"), name_of(CORE)
    envelope = Envelope(to="main", wrap="shared", key="AA")
    manifest = made(DEVICE, Manifest, core=CORE, envelope=envelope)
    heard(watch, DeviceManifest("floe", "pump-1", "main", 3), manifest)
    topics = [DeviceChunk("floe", "pump-1", "main", 3, name, index) for index in (0, 1)]
    assert heard(watch, topics[0], b"x" * 1000, 0.0) == []
    assert heard(watch, topics[0], b"x" * 1000, 0.1) == [], "the same chunk again is not another"
    assert watch.tick(EVERY_S / 2) == []
    (line,) = watch.tick(EVERY_S)
    assert (line.text, line.signature) == ("1/2 chunks, 2.0 kB", "")
    assert watch.tick(EVERY_S * 3) == [], "nothing new"
    (line,) = heard(watch, topics[1], b"y" * 500, EVERY_S * 3)
    assert line.text == "2/2 chunks, 2.5 kB"
    assert watch.tick(EVERY_S * 9) == []


def test_a_chunk_beyond_what_is_allowed_is_bad_and_not_remembered() -> None:
    watch = Watch("floe")
    (line,) = heard(watch, DeviceChunk("floe", "pump-1", "main", 3, "a" * 32, 1024), b"x")
    assert line.signature == "BAD chunk"
    assert watch.tick(EVERY_S * 9) == []


def test_made_up_transfers_cost_no_more_than_a_fixed_memory() -> None:
    watch = Watch("floe")
    for number in range(MAX_KNOWN + 5):
        heard(watch, DeviceChunk("floe", "pump-1", "main", 3, f"{number:032x}", 0), b"x")
    assert len(watch.tick(EVERY_S)) == MAX_KNOWN


def test_a_retained_message_that_is_removed_is_no_error() -> None:
    assert heard(Watch("floe"), STATUS, b"")[0].text == "removed (empty, retained)"


@given(st.text(max_size=60), st.binary(max_size=200))
def test_hostile_bytes_never_raise_and_never_reach_the_terminal(level: str, payload: bytes) -> None:
    for topic in (f"floe/floe/{level}", str(STATUS)):
        for line in heard(Watch("floe"), topic, payload):
            assert _text(line).isprintable()


def test_what_could_steer_a_terminal_is_escaped() -> None:
    assert printable("a\x1b[2J\u202e\nb") == "a\\x1b[2J\\u202e\\nb"


def test_the_command_prints_what_a_device_says_as_json_and_publishes_nothing(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    port, payload = str(mosquitto.port), made(DEVICE, Status, state="online")
    with subprocess.Popen(
        [sys.executable, "-m", "floe", "tail", "--port", port, "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"connected" in process.stderr.readline()
        speaker = Session(Mqtt(port=mosquitto.port), "speaker", ["floe/floe/#"], None)
        speaker.connect(lambda: False, print)
        speaker.publish(str(STATUS), payload, retain=True)
        line = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        seen = said_on(speaker)
    assert (line["type"], line["sender"], line["text"]) == ("status", "pump-1", "online")
    assert line["signature"].startswith("ok")
    assert seen == [str(STATUS)]


def said_on(session: Session) -> list[str]:
    """The topics of all that a session has received until it fell silent; closes it."""
    topics: list[str] = []
    until = time.monotonic() + 20
    while time.monotonic() < until:
        event = session.next(0.5)
        if event is None and topics:
            break
        if isinstance(event, Received):
            topics.append(event.topic)
            session.ack(event)
    session.close()
    return topics


def test_without_a_broker_it_says_so(tmp_path: Path, free_port: int) -> None:
    environ = {**os.environ, "FLOE_MQTT_CONNECT_TIMEOUT_S": "0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "floe", "tail", "--port", str(free_port)],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert f"no broker at 127.0.0.1:{free_port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_a_reader_that_has_enough_ends_it_quietly(mosquitto: Mosquitto, tmp_path: Path, flag: list[str]) -> None:
    speaker = Session(Mqtt(port=mosquitto.port), "speaker", [], None)
    speaker.connect(lambda: False, print)
    command = f"'{sys.executable}' -m floe tail --port {mosquitto.port} {' '.join(flag)} | head -n 1"
    with subprocess.Popen(
        ["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            speaker.publish(str(STATUS), b"x" * 10)
            speaker.next(0.05)
        out, err = process.communicate()
    speaker.close()
    assert len(out.splitlines()) == 1
    assert "BAD" in out
    assert "Traceback" not in err
    assert "Exception" not in err
