"""The proxy of the tests does what it is told: messages are lost, repeated and overtaken, links cut and hung."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

import pytest
from helpers.proxy import DROP, PASS, TWICE, Message, Proxy, Verdict
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker import run

WAIT_S = 20.0


class Listener:
    """A client of name "a" that hears what it publishes itself."""

    def __init__(self, port: int, protocol: MQTTProtocolVersion) -> None:
        self.heard: queue.Queue[str] = queue.Queue()
        self.lost: queue.Queue[str] = queue.Queue()
        self.client = Client(CallbackAPIVersion.VERSION2, "floe-a-12-4_78x", protocol=protocol)
        self.client.on_message = lambda client, data, message: self._hear(message)
        self.client.on_disconnect = lambda *_: self.lost.put("lost")
        subscribed: queue.Queue[int] = queue.Queue()
        self.client.on_connect = lambda client, *_: client.subscribe("floe/#", 1)
        self.client.on_subscribe = lambda *_: subscribed.put(1)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port, keepalive=5)
        self.client.loop_start()
        subscribed.get(timeout=WAIT_S)

    def say(self, *texts: str) -> None:
        for text in texts:
            self.client.publish("floe/floe/device/a/status", text.encode(), qos=1)

    def hear(self, count: int) -> list[str]:
        return [self.heard.get(timeout=WAIT_S) for _ in range(count)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _hear(self, message: MQTTMessage) -> None:
        self.heard.put(message.payload.decode())


@pytest.fixture
def proxy(broker: run.Mosquitto) -> Iterator[Proxy]:
    with Proxy(broker.port) as made:
        yield made


@pytest.fixture(params=[MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5], ids=["3.1.1", "5"])
def listener(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Listener]:
    made = Listener(proxy.port, request.param)
    yield made
    made.close()


def test_a_message_is_lost_or_comes_twice(proxy: Proxy, listener: Listener) -> None:
    def rule(message: Message) -> Verdict:
        verdicts = {b"lost": DROP, b"twice": TWICE}
        return verdicts.get(message.payload, PASS) if message.upward else PASS

    proxy.rule = rule
    listener.say("lost", "twice", "last")
    assert listener.hear(3) == ["twice", "twice", "last"]


def test_a_message_is_overtaken_by_the_next_or_goes_on_alone(proxy: Proxy, listener: Listener) -> None:
    def rule(message: Message) -> Verdict:
        return Verdict(behind=True) if message.upward and message.payload in (b"one", b"alone") else PASS

    proxy.rule = rule
    listener.say("one", "two", "three")
    assert listener.hear(3) == ["two", "one", "three"]
    assert proxy.overtaken == 1
    listener.say("alone")
    assert listener.hear(1) == ["alone"]
    assert proxy.overtaken == 1


def test_a_link_that_is_cut_comes_back_when_it_is_mended(proxy: Proxy, listener: Listener) -> None:
    proxy.cut("another")
    listener.say("one")
    assert listener.hear(1) == ["one"]
    proxy.cut("a")
    assert listener.lost.get(timeout=WAIT_S) == "lost"
    listener.say("two")
    assert listener.lost.get(timeout=WAIT_S) == "lost", "it was to be refused again"
    proxy.mend("a")
    heard = listener.hear(1)
    if heard == ["one"]:  # QoS 1: its acknowledgement may have been cut off
        heard = listener.hear(1)
    assert heard == ["two"]


def test_through_a_link_that_hangs_nothing_goes_until_it_is_mended(proxy: Proxy, listener: Listener) -> None:
    proxy.hang("a")
    listener.say("one")
    time.sleep(1.0)
    assert listener.heard.empty()
    proxy.mend("a")
    assert listener.hear(1) == ["one"]
    assert listener.lost.empty()
