"""What a machine or a person can do wrong: each ends, or goes on, with a message that says the way out."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.broker import broker_on, free
from helpers.federation import Federation

WHO = ["aggregator", "a"]


def begin(federation: Federation, who: str, *flags: str, **env: str) -> str:
    """Run an aggregator or a client to its end; exit code and what it said."""
    if who == "a":
        federation.features("a")
        flags = ("--id", "a", "--data", "features/a", *flags)
    process = federation.start(who, "client" if who == "a" else who, *flags, env=env)
    return f"{process.wait()} {process.said()}"


@pytest.mark.parametrize("who", WHO)
def test_no_broker_or_a_wrong_port_is_said_with_the_way_out(federation: Federation, who: str) -> None:
    federation.configure({"mqtt": {"port": free(), "connect_timeout_s": 0.5}})
    said = begin(federation, who)
    assert said.startswith("4 ")
    assert "no broker at 127.0.0.1:" in said
    assert "Start one with `floe broker`, or see [mqtt]" in said


@pytest.mark.parametrize("who", WHO)
def test_a_host_that_does_not_exist_is_said(federation: Federation, who: str) -> None:
    federation.configure({"mqtt": {"host": "broker.invalid", "connect_timeout_s": 0.5}})
    said = begin(federation, who)
    assert said.startswith("4 ")
    assert "no broker at broker.invalid:" in said


@pytest.mark.parametrize("who", WHO)
def test_a_port_where_something_else_answers_is_said(federation: Federation, who: str) -> None:
    """sshd, a web server: it speaks, but not MQTT."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        federation.configure({"mqtt": {"port": server.getsockname()[1], "connect_timeout_s": 1.0}})
        said = begin(federation, who)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert said.startswith("4 ")


@pytest.mark.parametrize("who", WHO)
def test_a_refused_login_is_said(federation: Federation, tmp_path: Path, who: str) -> None:
    with broker_on(tmp_path / "locked", free(), "fleet", "secret") as locked:
        federation.configure({"mqtt": {"port": locked.port, "username": "fleet", "password": "wrong"}})
        said = begin(federation, who)
        assert said.startswith("4 ")
        assert "refused us" in said
        assert "check [mqtt] username and password" in said
        assert "wrong" not in said.replace("wrong port", ""), "the password is not shown"


def test_the_right_login_gets_in(federation: Federation, tmp_path: Path) -> None:
    with broker_on(tmp_path / "locked", free(), "fleet", "secret") as locked:
        federation.configure({"mqtt": {"port": locked.port, "username": "fleet"}})
        federation.features("a")
        process = federation.start(
            "a", "client", "--id", "a", "--data", "features/a", env={"FLOE_MQTT_PASSWORD": "secret"}
        )
        federation.wait(lambda: "connected to" in process.said(), "it was to connect")
        assert process.interrupt() == 130


def test_mosquitto_that_is_not_installed_is_said_with_the_command(federation: Federation) -> None:
    process = federation.start("broker", "broker", "--mosquitto", "mosquitto-that-is-not-there")
    assert process.wait() == 4
    assert "sudo apt-get install mosquitto" in process.said()


@pytest.mark.parametrize("spoil", ["empty", "truncated", "nan", "missing", "text"])
def test_features_that_cannot_be_used_are_named(federation: Federation, spoil: str) -> None:
    folder = federation.features("a")
    path = folder / "train_x.npy"
    if spoil == "empty":
        np.save(path, np.zeros((0, 3), np.float32))
    elif spoil == "nan":
        np.save(path, np.full((40, 3), np.nan, np.float32))
    elif spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif spoil == "text":
        path.write_text("a,b,c\n1,2,3\n")
    else:
        path.unlink()
    process = federation.client("a")
    assert process.wait() == 3
    assert "train_x" in process.said()
