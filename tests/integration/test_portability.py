"""Another broker than Mosquitto: NATS Server speaks MQTT 3.1.1 only, and a federation on it gives the same models."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.broker import free
from helpers.federation import BIG, Federation

CONFIGURATION = """
server_name: floe-test
listen: "127.0.0.1:{client}"
jetstream {{ store_dir: "{folder}" }}
mqtt {{ listen: "127.0.0.1:{mqtt}" }}
"""


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[int]:
    """The MQTT port of a NATS Server."""
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if program is None:
        pytest.skip("nats-server is not installed: sudo apt-get install nats-server")
    port = free()
    path = tmp_path / "nats.conf"
    path.write_text(CONFIGURATION.format(client=free(), folder=tmp_path / "nats", mqtt=port))
    with (tmp_path / "nats.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(path)], stdout=log, stderr=log)
    try:
        _wait_for(port, tmp_path / "nats.log")
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nats-server does not listen:\n{log.read_text()}")


def test_a_federation_on_an_mqtt_3_1_1_broker_gives_the_same_models(
    nats: int, tmp_path: Path, undisturbed: dict[int, str]
) -> None:
    federation = Federation(tmp_path / "on-nats", nats)
    federation.configure(BIG)
    try:
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device)
        federation.finish()
        assert federation.models() == undisturbed
    finally:
        federation.close()
