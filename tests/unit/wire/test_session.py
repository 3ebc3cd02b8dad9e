"""A session with a real Mosquitto: what is refused, and a broker that only speaks MQTT 3.1.1."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from helpers.packets import Packet

from broker.run import Mosquitto
from floe.errors import BrokerError, Refused
from floe.session import Connected, Disconnected, Event, Published, Received, Session
from floe.settings import Mqtt
from floe.topics import parse

WAIT_S = 20.0
CONNACK_UNACCEPTABLE = b"\x20\x02\x00\x01"  # MQTT 3.1.1, 3.2.2.3: what a 3.1.1 broker says to level 5
LEVEL = 8  # the byte of a CONNECT of less than 128 bytes: header 2, "MQTT" with its length 6, level


@contextmanager
def session(port: int, filters: tuple[str, ...] = ()) -> Iterator[Session]:
    found = Session(Mqtt(port=port, connect_timeout_s=WAIT_S), "test", filters, None)
    try:
        yield found
    finally:
        found.close()


def until(found: Session, condition: Callable[[Event], bool]) -> list[Event]:
    """The events up to the first that is as wanted."""
    events: list[Event] = []
    end = time.monotonic() + WAIT_S
    while not (events and condition(events[-1])):
        assert time.monotonic() < end, events
        if (event := found.next(0.2)) is not None:
            events.append(event)
    return events


def connected(found: Session) -> list[Event]:
    found.connect(lambda: False, lambda text: None)
    return until(found, lambda event: isinstance(event, Connected))


def answered(found: Session) -> Event:
    return until(found, lambda event: isinstance(event, Published))[-1]


@pytest.mark.parametrize("listening", [False, True])
def test_a_stop_is_heeded_in_the_midst_of_an_attempt_and_of_the_pause_after_it(
    free_port: int, listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With something that takes the connection and says nothing, and with no broker at all."""
    looks, told, attempts = iter(range(1000)), list[str](), list[None]()
    attempt = Session._open
    monkeypatch.setattr(Session, "_open", lambda session: [attempts.append(None), attempt(session)])
    with socket.create_server(("127.0.0.1", free_port)) as server:
        if not listening:
            server.close()
        found = Session(Mqtt(port=free_port, connect_timeout_s=0), "test", (), None)
        found.connect(lambda: next(looks) >= 3, told.append)
        found.close()
    assert len(attempts) == 1
    assert len(told) == (0 if listening else 1)


def test_a_refused_publish_is_told_once_for_each_connection_and_makes_room(mosquitto: Mosquitto) -> None:
    """The ACL of `floe broker` lets nobody write outside of floe/<federation>/."""
    with session(mosquitto.port) as found:
        connected(found)
        for _ in range(2):
            found.publish("elsewhere", b"x")
        assert answered(found) == Published("Not authorized (135)")
        assert answered(found) == Published()
        found.publish("floe/floe/device/a/status", b"x")
        assert answered(found) == Published()
        assert found.outstanding == 0


def relay(server: socket.socket, port: int, levels: list[int]) -> None:
    """A broker before 2019: refuses MQTT 5, and is Mosquitto for the rest. Notes the levels it was asked for."""
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            hello = client.recv(127)
            levels.append(hello[LEVEL])
            if hello[LEVEL] == 5:
                client.sendall(CONNACK_UNACCEPTABLE)
                client.close()
                continue
            broker = socket.create_connection(("127.0.0.1", port))
            broker.sendall(hello)
            for ends in ((client, broker), (broker, client)):
                threading.Thread(target=copy, args=ends, daemon=True).start()


def copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError), source, sink:
        while data := source.recv(65536):
            sink.sendall(data)


@pytest.fixture
def older(mosquitto: Mosquitto) -> Iterator[tuple[int, list[int]]]:
    """The port of a broker that only speaks 3.1.1, and the levels it was asked for."""
    levels: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=relay, args=(server, mosquitto.port, levels))
        thread.start()
        yield server.getsockname()[1], levels
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_broker_of_mqtt_3_1_1_is_spoken_to_in_its_version(older: tuple[int, list[int]]) -> None:
    port, levels = older
    with session(port, ("floe/floe/#",)) as found:
        found.publish("floe/floe/device/a/status", b"of the client that is given up")
        events = connected(found)
        assert Disconnected("the broker speaks MQTT 3.1.1 only") in events
        assert (levels[0], levels[-1]) == (5, 4)
        assert found.outstanding == 0, "nothing of the old client fills the window of the new one"
        found.publish("floe/floe/device/a/status", b"new")
        events = until(found, lambda event: isinstance(event, Received))
        assert [event.payload for event in events if isinstance(event, Received)] == [b"new"]


SUBSCRIBE = 0x82


@contextmanager
def refusing_broker(codes: bytes) -> Iterator[int]:
    """The port of a broker that answers a subscription with these reason codes, and then sends a message."""

    def serve() -> None:
        with suppress(OSError), server.accept()[0] as client:
            client.recv(1000)
            client.sendall(CONNACK_5)
            packet = client.recv(1000)
            assert packet[0] == SUBSCRIBE
            client.sendall(Packet(0x90, packet[2:4] + b"\x00" + codes).to_bytes())
            client.sendall(Packet(0x30, b"\x00\x06floe/a\x00good").to_bytes())
            client.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.close()
            thread.join()


FILTERS = ("floe/#", "$SYS/broker/uptime", "$SYS/broker/version")


def test_a_broker_that_keeps_its_own_figures_to_itself_is_good_enough() -> None:
    with refusing_broker(b"\x01\x87\x87") as port, session(port, FILTERS) as found:
        connected(found)
        events = until(found, lambda event: isinstance(event, Received))
    assert [event.payload for event in events if isinstance(event, Received)] == [b"good"]


def test_a_broker_that_refuses_a_topic_of_floe_is_not() -> None:
    with refusing_broker(b"\x87\x01\x01") as port, session(port, FILTERS) as found:
        connected(found)
        with pytest.raises(BrokerError, match="refused the subscription to floe/#: check its ACL"):
            until(found, lambda event: isinstance(event, Received))


CONNACK_5 = b"\x20\x03\x00\x00\x00"
WRONG = {
    "a topic that is not UTF-8": b"\x30\x06\x00\x02\xff\xfe\x00x",
    "the same at QoS 1": b"\x32\x08\x00\x02\xff\xfe\x00\x01\x00x",
    "no topic": b"\x30\x04\x00\x00\x00x",
    "a packet that is cut": b"\x30\x01\x00",
    "a property that is none": b"\x30\x07\x00\x01a\x02\xfe\xfex",
}


@contextmanager
def odd_broker(wrong: bytes) -> Iterator[int]:
    """The port of a broker that says something wrong on its first connection, and on each a message as it should be."""
    said, clients = iter([wrong]), list[socket.socket]()

    def serve() -> None:
        with suppress(OSError):
            while True:
                clients.append(server.accept()[0])
                clients[-1].recv(1000)
                clients[-1].sendall(CONNACK_5 + next(said, b""))
                clients[-1].sendall(Packet(0x30, b"\x00\x06floe/a\x00good").to_bytes())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in clients:
                client.close()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_broker_that_breaks_the_protocol_makes_nobody_deaf(wrong: str) -> None:
    """An exception in paho's thread would end it, and the session would seem to be connected for ever."""
    with odd_broker(WRONG[wrong]) as port, session(port) as found:
        connected(found)
        events = until(found, lambda event: isinstance(event, Received) and event.payload == b"good")
        topics = [event.topic for event in events if isinstance(event, Received)]
    assert topics[-1] == "floe/a"
    for odd in topics[:-1]:
        with pytest.raises(Refused, match="malformed"):
            parse(odd)


def test_processes_that_lost_one_broker_do_not_come_back_in_step() -> None:
    clients = [Session(Mqtt(), "test", (), None)._client for _ in range(20)]
    shortest = {client._reconnect_min_delay for client in clients}
    longest = {client._reconnect_max_delay for client in clients}
    assert len(shortest) == len(longest) == 20
    assert 0.5 <= min(shortest) <= max(shortest) <= 1.5
    assert 20.0 <= min(longest) <= max(longest) <= 40.0
