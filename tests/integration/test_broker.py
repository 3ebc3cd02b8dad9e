"""A real Mosquitto: what it lets through, what it keeps, how it starts, fails and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from queue import Queue
from typing import Any

import msgspec
import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker import run
from floe.errors import BrokerError, ConfigError
from floe.settings import Config

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0
NOT_AUTHORIZED = 0x87


class Peer:
    """An MQTT 5 client whose callbacks only enqueue."""

    def __init__(self, host: str, port: int, login: tuple[str, str] | None = None) -> None:
        self.received: Queue[tuple[str, bytes]] = Queue()
        self.connected: Queue[tuple[int, Properties | None]] = Queue()
        self.published: Queue[int] = Queue()
        self.subscribed: Queue[None] = Queue()
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        if login:
            self.client.username_pw_set(*login)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = lambda *_: self.subscribed.put(None)
        self.client.connect(host, port)
        self.client.loop_start()

    def _on_connect(self, _c: Client, _u: object, _f: Any, reason: ReasonCode, properties: Properties | None) -> None:
        self.connected.put((reason.value, properties))

    def _on_message(self, _c: Client, _u: object, message: MQTTMessage) -> None:
        self.received.put((message.topic, bytes(message.payload)))

    def _on_publish(self, _c: Client, _u: object, _mid: int, reason: ReasonCode, _p: Properties) -> None:
        self.published.put(reason.value)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish at QoS 1 and return the broker's reason code."""
        self.client.publish(topic, payload, qos=1, retain=retain)
        return self.published.get(timeout=WAIT_S)

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic, qos=1)
        self.subscribed.get(timeout=WAIT_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def connected(broker: run.Mosquitto, login: tuple[str, str] | None = None) -> Peer:
    peer = Peer(broker.host, broker.port, login)
    assert peer.connected.get(timeout=WAIT_S)[0] == 0
    return peer


def with_keys(config: Config, section: str, **keys: object) -> Config:
    """The configuration with some keys of one section replaced."""
    changed = msgspec.structs.replace(getattr(config, section), **keys)
    return msgspec.structs.replace(config, **{section: changed})


def with_login(config: Config) -> Config:
    return with_keys(config, "mqtt", username="fleet", password="p: w#rd")


def test_a_message_of_the_federation_arrives(mosquitto: run.Mosquitto) -> None:
    peer = connected(mosquitto)
    peer.subscribe("floe/#")
    assert peer.publish("floe/floe/device/a/status", b"hello") in (0, 0x10)
    assert peer.received.get(timeout=WAIT_S) == ("floe/floe/device/a/status", b"hello")
    peer.close()


@pytest.mark.parametrize("topic", ["floe/other/device/a/status", "floe/floe/elsewhere", "weather"])
def test_a_message_outside_the_federation_is_refused_and_the_client_stays(mosquitto: run.Mosquitto, topic: str) -> None:
    peer = connected(mosquitto)
    assert peer.publish(topic, b"x") == NOT_AUTHORIZED
    assert peer.publish("floe/floe/lineage/main/round", b"x") != NOT_AUTHORIZED
    assert peer.connected.empty(), "a denied publish must not cost the connection"
    peer.close()


def test_the_largest_packet_is_announced_to_the_client(mosquitto: run.Mosquitto) -> None:
    peer = Peer(mosquitto.host, mosquitto.port)
    _, properties = peer.connected.get(timeout=WAIT_S)
    assert properties is not None
    assert vars(properties)["MaximumPacketSize"] == 2_000_000
    peer.close()


def test_its_statistics_can_be_read(mosquitto: run.Mosquitto) -> None:
    peer = connected(mosquitto)
    peer.subscribe("$SYS/broker/version")
    assert b"mosquitto" in peer.received.get(timeout=WAIT_S)[1]
    peer.close()


def test_a_login_lets_in_and_a_wrong_one_or_none_does_not(broker_config: Config, tmp_path: Path) -> None:
    with run.start(with_login(broker_config), tmp_path / "broker") as broker:
        peer = connected(broker, ("fleet", "p: w#rd"))
        assert peer.publish("floe/floe/device/a/status", b"x") != NOT_AUTHORIZED
        peer.close()
        for login in (("fleet", "wrong"), ("stranger", "p: w#rd"), None):
            refused = Peer(broker.host, broker.port, login)
            assert refused.connected.get(timeout=WAIT_S)[0] == NOT_AUTHORIZED
            refused.close()


def test_its_files_are_for_its_account_alone_and_hold_no_password(broker_config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with run.start(with_login(broker_config), folder):
        files = [path for path in folder.iterdir() if path.name != run.LOG]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert all(b"p: w#rd" not in path.read_bytes() for path in files)


def test_a_retained_message_survives_a_stop(broker_config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    with run.start(broker_config, folder) as broker:
        peer = connected(broker)
        peer.publish("floe/floe/lineage/main/round", b"7", retain=True)
        peer.close()
    with run.start(broker_config, folder) as broker:
        peer = connected(broker)
        peer.subscribe("floe/floe/lineage/+/round")
        assert peer.received.get(timeout=WAIT_S)[1] == b"7"
        peer.close()


def test_it_ends_with_its_block_and_leaves_the_port_free(broker_config: Config, tmp_path: Path) -> None:
    with run.start(broker_config, tmp_path / "broker") as broker:
        pid = broker.pid
        assert broker.exit_code() is None
    assert broker.exit_code() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((broker.host, broker.port), 1.0)


def test_a_port_that_is_taken_is_named(mosquitto: run.Mosquitto, broker_config: Config, tmp_path: Path) -> None:
    with (
        pytest.raises(BrokerError, match=rf"port {mosquitto.port} on 127\.0\.0\.1 is taken.*--port"),
        run.start(broker_config, tmp_path / "second"),
    ):
        pass


def test_an_address_of_another_machine_is_refused(broker_config: Config, tmp_path: Path) -> None:
    config = with_keys(with_login(broker_config), "broker", bind="192.0.2.1")
    with pytest.raises(ConfigError, match=r"broker\.bind = '192\.0\.2\.1'"), run.start(config, tmp_path / "broker"):
        pass


def test_where_mosquitto_is_missing_the_command_that_installs_it_is_given(
    broker_config: Config, tmp_path: Path
) -> None:
    config = with_keys(broker_config, "broker", mosquitto="no-such-mosquitto")
    with pytest.raises(BrokerError, match="sudo apt-get install mosquitto"), run.start(config, tmp_path / "broker"):
        pass


def test_a_broker_that_dies_at_the_start_shows_the_end_of_its_log(broker_config: Config, tmp_path: Path) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    program.chmod(0o755)
    config = with_keys(broker_config, "broker", mosquitto=str(program))
    with pytest.raises(BrokerError, match=r"(?s)code 3.*out of luck"), run.start(config, tmp_path / "broker"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_floe_broker_runs_until_it_is_asked_to_stop(free_port: int, tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", "from floe.cli import main; main()", "broker", "--port", str(free_port)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"127.0.0.1:{free_port}" in process.stdout.readline()
        assert str(tmp_path / "state" / "broker") in process.stdout.readline()
        socket.create_connection(("127.0.0.1", free_port), WAIT_S).close()
        process.send_signal(number)
        assert process.wait(WAIT_S) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port), 1.0)
