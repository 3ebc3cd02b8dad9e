"""Many MQTT connections in one process: paho's clients, driven by one loop (epoll) instead of a thread each."""

from __future__ import annotations

import resource
import selectors
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from floe.errors import BrokerError
from floe.session import WINDOW
from floe.topics import Topic

KEEPALIVE_S = 60
MISC_S = 5.0  # between two looks at the keep-alive of all
DESCRIPTORS = 3  # of one connection: its socket, and a pair with which paho wakes a thread that is not there here


class Owner(Protocol):
    """Whoever speaks over a link."""

    def connected(self) -> None: ...

    def received(self, topic: str, payload: bytes, *, retained: bool) -> None: ...

    def published(self) -> None: ...


class Link:
    """One connection. It stands for itself as `floe.pump.Outlet` wants it. Ends the process if it is lost."""

    def __init__(self, client_id: str, filters: Sequence[str], will: tuple[str, bytes], owner: Owner) -> None:
        self.connected = False
        self.outstanding = 0
        self._client_id = client_id
        self._filters = filters
        self._owner = owner
        self.client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.max_inflight_messages_set(WINDOW)
        self.client.will_set(*will, qos=1, retain=True)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish

    @property
    def session(self) -> Link:
        return self

    def send_bytes(self, topic: Topic, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1."""
        self.client.publish(str(topic), payload, qos=1, retain=retain)
        self.outstanding += 1

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            raise BrokerError(f"the broker refused {self._client_id}: {code}")
        client.subscribe([(topic, 1) for topic in self._filters])
        self.connected = True
        self._owner.connected()

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self.connected = False
        if code.is_failure:
            raise BrokerError(f"{self._client_id} lost its connection: {code}")

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        self._owner.received(message.topic, bytes(message.payload), retained=message.retain)

    def _on_publish(
        self, client: Client, userdata: Any, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        self.outstanding -= 1
        if code.is_failure:
            raise BrokerError(f"the broker refused a message of {self._client_id}: {code}")
        self._owner.published()


class Links:
    """Runs many links at once."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._clients: list[Client] = []
        self._misc_at = 0.0

    def open(self, link: Link, port: int) -> None:
        """Connect a link to a broker of this machine; it is used in `run` alone. Raises `OSError`."""
        client = link.client
        client.on_socket_open = self._on_open
        client.on_socket_close = self._on_close
        client.on_socket_register_write = partial(self._wait_for, write=True)
        client.on_socket_unregister_write = partial(self._wait_for, write=False)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = WINDOW
        client.connect("127.0.0.1", port, KEEPALIVE_S, properties=properties)
        self._clients.append(client)

    def run(self, turn: Callable[[], bool], turn_s: float) -> None:
        """Serve all links, and call `turn` about every `turn_s` until it is true. Raises what a link raises."""
        turn_at = 0.0
        while True:
            now = time.monotonic()
            if now >= turn_at:
                turn_at = now + turn_s
                if turn():
                    return
            if now >= self._misc_at:
                self._misc_at = now + MISC_S
                for client in self._clients:
                    client.loop_misc()
            for key, events in self._selector.select(max(turn_at - time.monotonic(), 0.0)):
                if events & selectors.EVENT_READ:
                    key.data.loop_read()
                if events & selectors.EVENT_WRITE:
                    key.data.loop_write()

    def close(self) -> None:
        """Disconnect all."""
        for client in self._clients:
            client.disconnect()
            client.loop_write()

    def _on_open(self, client: Client, userdata: Any, sock: Any) -> None:
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _on_close(self, client: Client, userdata: Any, sock: Any) -> None:
        self._selector.unregister(sock)

    def _wait_for(self, client: Client, userdata: Any, sock: Any, *, write: bool) -> None:
        self._selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0), client)


def allow_descriptors(links: int) -> None:
    """Raise this process's limit of open files for so many links. Raises `BrokerError` if the hard limit is below."""
    needed = links * DESCRIPTORS + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BrokerError(f"{links} connections need {needed} open files, the limit is {hard} (ulimit -Hn): raise it")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
