"""A real Mosquitto as `floe broker` runs it, on a port that a test names so that it can be started there again."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager
from pathlib import Path

from broker import run
from floe.settings import Config, Mqtt


def broker_on(folder: Path, port: int, username: str = "", password: str = "") -> AbstractContextManager[run.Mosquitto]:
    """Mosquitto with its files in `folder`, until the block ends."""
    mqtt = Mqtt(port=port, username=username, password=password)
    return run.start(Config(mqtt=mqtt, folder=folder.parent), folder)


def free() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
