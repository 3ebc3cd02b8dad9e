"""Fixtures that several folders of tests share. Real servers, never stand-ins."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from broker import run
from floe.settings import Config, Mqtt

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a thousand processes that compile all of Floe anew take minutes

settings.register_profile("floe", deadline=None)  # a slow machine refutes no property
settings.load_profile("floe")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="DIR", help="where the pictures of the page are kept")


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def broker_config(free_port: int, tmp_path: Path) -> Config:
    """The defaults, on a free port of the loopback interface, with `tmp_path` as the folder."""
    return Config(mqtt=Mqtt(port=free_port), folder=tmp_path)


@pytest.fixture
def mosquitto(broker_config: Config, tmp_path: Path) -> Iterator[run.Mosquitto]:
    """A real Mosquitto as `floe broker` runs it: `host`, `port`, `folder`; federation "floe", no login.

    Where Mosquitto is not installed this is an error that says how to install it, not a skip.
    """
    with run.start(broker_config, tmp_path / "broker") as running:
        yield running


@pytest.fixture
def data_folder() -> Path:
    """The folder of the real data sets: FLOE_DATA, or shared/data beside the repository; skips where absent."""
    folder = Path(os.environ.get("FLOE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}; name one with FLOE_DATA")
    return folder


@pytest.fixture
def vectors_folder() -> Path:
    """The folder of the test vectors of others, beside the real data; skips where absent."""
    data = Path(os.environ.get("FLOE_DATA") or ROOT.parent / "shared" / "data")
    folder = data.parent / "vectors"
    if not folder.is_dir():
        pytest.skip(f"test vectors: no folder {folder}; it lies beside the folder that FLOE_DATA names")
    return folder
