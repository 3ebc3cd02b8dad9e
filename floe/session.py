"""The connection to the broker: the only file that imports paho.

paho's thread only converts and enqueues; `next` hands the events to the one loop of the process. Sessions are clean
(MQTT 5, 3.1.2.4): nothing that matters is kept by the broker, whoever lacks something asks again. A received message
is acknowledged by `ack`, after it was stored, so that the broker's in-flight window limits what waits in memory.
"""

from __future__ import annotations

import queue
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from floe.access import Access, access_of, explain, why
from floe.errors import AccessError, BrokerError, KeyFileError, StoreError
from floe.settings import Mqtt

WINDOW = 32  # messages in flight, each way: with 64 KiB chunks 2 MiB
MAX_WAITING = 1000  # messages of QoS 0, which nothing holds back, that may wait for the loop
UNSUPPORTED_VERSION = 132  # MQTT 5, 3.2.2.2
UNWELCOME = (133, 134, 135, 138, 140)  # the same: client id, name or password, not authorised, banned
NO_TOPIC = "\ufffd"  # in place of one that is not UTF-8 (MQTT 5, 1.5.4)
STOP_POLL_S = 0.1  # how long somebody who wants us to end may have to wait for it
UNAUTHORIZED = "Not authorized (135)"  # MQTT 5, 3.4.2.1: the broker's ACL
TAKEN_OVER = 142  # MQTT 5, 3.14.2.1
# Mosquitto 2.0 tells nobody that it was taken over: it closes, and so again and again. A broker that is killed a few
# times in a row does the same; one that goes on so is given up by whatever starts it.
QUICK_S, QUICK_LOSSES = 5.0, 20


@dataclass(frozen=True)
class Connected:
    """The broker accepted us. Our subscriptions are on their way, before anything that we publish from now on."""


@dataclass(frozen=True)
class Disconnected:
    """The connection is gone; paho is trying again."""

    reason: str


@dataclass(frozen=True)
class Fatal:
    """The broker will not have us, or we not it: trying again would not help."""

    error: BrokerError


@dataclass(frozen=True)
class Received:
    """One message, to be acknowledged with `Session.ack`. `retained`: it was there before we subscribed."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    retained: bool


@dataclass(frozen=True)
class Published:
    """The broker answered for a message of ours: there is room for another.

    `refusal`: MQTT 5 gave a reason code of 128 or more (3.4.2.1) that was not seen before on this connection, and the
    message went nowhere. MQTT 3.1.1 has no such answer.
    """

    refusal: str = ""


@dataclass(frozen=True)
class Posted:
    """Something that another thread of this process handed to its loop."""

    content: object


@dataclass(frozen=True)
class _TooNew:
    """The broker speaks MQTT 3.1.1 only."""


Event = Connected | Disconnected | Fatal | Received | Published | Posted


class Session:
    """One MQTT connection that comes back by itself.

    `will` makes topic and payload of the last will anew for each connection; None: a listener, that leaves none.
    MQTT 5 is tried first; a broker that speaks only 3.1.1 gets that. `access`: login and TLS; None: as [mqtt] says.
    Raises `KeyFileError` for certificates that cannot be used.
    """

    def __init__(
        self,
        mqtt: Mqtt,
        client_id: str,
        filters: Sequence[str],
        will: Callable[[], tuple[str, bytes]] | None,
        access: Access | None = None,
    ):
        self.connected = False
        self.outstanding = 0
        self._mqtt = mqtt
        self._access = access or access_of(mqtt)
        self._context = self._access.tls.context() if self._access.tls else None
        self._client_id = client_id
        self._filters = list(filters)
        self._will = will
        self._events: queue.SimpleQueue[Event | _TooNew] = queue.SimpleQueue()
        self._answered = threading.Event()
        self._greeted = False  # whether this connection had an answer
        self._connected_at = 0.0
        self._quick_losses = 0
        self._refusals: set[str] = set()
        self._client = self._new_client(MQTTProtocolVersion.MQTTv5)

    def connect(self, stopped: Callable[[], bool], waiting: Callable[[str], None]) -> None:
        """Connect, trying again with growing pauses; `waiting` is told why, once for each new reason.

        Raises `BrokerError` when `connect_timeout_s` has passed, `AccessError` at once for a broker that is not ours or
        does not speak as we do. Returns early if `stopped`.
        """
        started, pause, told = time.monotonic(), 0.5, ""
        place, running = f"{self._mqtt.host}:{self._mqtt.port}", False
        while not (stopped() or self._answered.is_set()):
            reason = f"{place} takes the connection but does not answer as an MQTT broker"
            try:
                if not running:
                    self._open()
                    running = True
                if self._answers_within(2.0, stopped) or stopped():
                    return
            except (OSError, ValueError) as error:
                if fault := self._explained(error):
                    raise fault from None
                reason = f"no broker at {place} ({_words(error)})"
                if isinstance(error, ssl.SSLError | ConnectionResetError) and self._context:
                    reason = f"{place} ends the connection when we speak TLS: is that its TLS port ({_words(error)})"
            waited = time.monotonic() - started
            if 0 < self._mqtt.connect_timeout_s <= waited:
                raise BrokerError(
                    f"{reason}; gave up after {waited:.0f} s. Start one with `floe broker`, or see [mqtt]"
                )
            if reason != told:
                waiting(f"{reason}: trying again")
                told = reason
            self._answers_within(pause * random.uniform(0.5, 1.0), stopped)  # noqa: S311 (jitter)
            pause = min(pause * 2, 5.0)

    def next(self, timeout_s: float) -> Event | None:
        """The next event, or None after `timeout_s`."""
        try:
            event = self._events.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            return None
        if isinstance(event, Fatal):
            raise event.error
        if isinstance(event, _TooNew):
            return self._speak_older()
        if isinstance(event, Connected):
            self._refusals.clear()
        if isinstance(event, Published):
            return self._published(event)
        return event

    def post(self, content: object) -> None:
        """Wake the loop with a `Posted` event; from any thread."""
        self._events.put(Posted(content))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1; while disconnected it is queued and sent later, in order."""
        self._client.publish(topic, payload, qos=1, retain=retain)
        self.outstanding += 1

    def listen(self, topic_filter: str) -> None:
        """Subscribe to more, also over a reconnect."""
        if topic_filter not in self._filters:
            self._filters.append(topic_filter)
        self._client.subscribe(topic_filter, 1)

    def ack(self, received: Received) -> None:
        """Tell the broker that a message is stored; it may send the next."""
        if received.qos:
            self._client.ack(received.mid, received.qos)

    def close(self) -> None:
        """Send what is queued, for at most two seconds, and disconnect."""
        until = time.monotonic() + 2
        while self.connected and self.outstanding > 0 and time.monotonic() < until:
            self.next(0.05)
        self._client.disconnect()
        self._client.loop_stop()

    def _answers_within(self, timeout_s: float, stopped: Callable[[], bool]) -> bool:
        until = time.monotonic() + timeout_s
        while not (stopped() or self._answered.is_set()) and (left_s := until - time.monotonic()) > 0:
            self._answered.wait(min(left_s, STOP_POLL_S))
        return self._answered.is_set()

    def _explained(self, error: Exception) -> AccessError | None:
        if isinstance(error, ssl.SSLError) and self._access.tls:
            return explain(error, self._mqtt.host, self._mqtt.port, self._access.tls)
        return None

    def _published(self, event: Published) -> Published:
        self.outstanding -= 1
        if event.refusal in self._refusals:
            return Published()
        if event.refusal:
            self._refusals.add(event.refusal)
        return event

    def _speak_older(self) -> Disconnected:
        """Go on with a new client, which has nothing in flight: what was given to the old one is lost."""
        if self._client.protocol == MQTTProtocolVersion.MQTTv5:
            old, self._client = self._client, self._new_client(MQTTProtocolVersion.MQTTv311)
            old.disconnect()
            old.loop_stop()
            self.outstanding = 0
            # Its thread connects, and tries again: nothing can be raised here, in the midst of a loop.
            self._client.connect_async(self._mqtt.host, self._mqtt.port, self._mqtt.keepalive_s)
            self._client.loop_start()
        return Disconnected("the broker speaks MQTT 3.1.1 only")

    def _open(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = WINDOW
        self._client.connect(self._mqtt.host, self._mqtt.port, self._mqtt.keepalive_s, properties=properties)
        self._client.loop_start()

    def _new_client(self, protocol: MQTTProtocolVersion) -> Client:
        clean = True if protocol == MQTTProtocolVersion.MQTTv311 else None  # 5 has clean start instead
        client = Client(CallbackAPIVersion.VERSION2, self._client_id, clean, protocol=protocol, manual_ack=True)
        client.max_inflight_messages_set(WINDOW)
        # Drawn anew for each process: a thousand that lost one broker must not come back in step.
        client.reconnect_delay_set(random.uniform(0.5, 1.5), random.uniform(20.0, 40.0))  # type: ignore[arg-type]  # noqa: S311 (jitter)
        if self._access.username:
            client.username_pw_set(self._access.username, self._access.password or None)
        if self._context:
            client.tls_set_context(self._context)
        client.on_pre_connect = self._on_pre_connect
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    # From here on paho's thread.

    def _on_pre_connect(self, client: Client, userdata: Any) -> None:
        try:
            if self._context and self._access.tls:
                self._access.tls.show(self._context)
        except KeyFileError as error:  # the certificate of before has to do
            self._events.put(Disconnected(str(error)))
        if self._will is None:
            return
        try:
            topic, payload = self._will()
            client.will_set(topic, payload, qos=1, retain=True)
        except StoreError as error:  # a full disk must not end the thread: the will of before has to do
            self._events.put(Disconnected(str(error)))

    def _on_connect_fail(self, client: Client, userdata: Any) -> None:
        if self._context:
            self._unanswered("TLS failed")

    def _on_socket_open(self, client: Client, userdata: Any, sock: Any) -> None:
        self._greeted = False
        if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(
        self, client: Client, userdata: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._answered.set()
        self._greeted = True
        if not code.is_failure:
            self.connected, self._connected_at = True, time.monotonic()
            if self._filters:
                client.subscribe([(topic, 1) for topic in self._filters])
            self._events.put(Connected())
        elif code.value == UNSUPPORTED_VERSION and client.protocol == MQTTProtocolVersion.MQTTv5:
            self._events.put(_TooNew())
        elif code.value not in UNWELCOME:
            self._events.put(Disconnected(str(code)))  # busy, or short of something: paho tries again
        else:
            place = f"{self._mqtt.host}:{self._mqtt.port}"
            words = f"the broker at {place} refused us: {code}; check [mqtt] username and password"
            self._events.put(Fatal(AccessError("login", words)))

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if client is not self._client:
            return
        if self.connected:
            quick = time.monotonic() - self._connected_at < QUICK_S
            self._quick_losses = self._quick_losses + 1 if quick else 0
        self.connected = False
        if code.value == TAKEN_OVER or self._quick_losses >= QUICK_LOSSES:
            words = f"another process connected as {self._client_id}: two with one id and one key?"
            self._events.put(Fatal(BrokerError(words)))
        elif self._greeted or (self._answered.is_set() and not self._context):
            self._events.put(Disconnected(str(code)))
        else:
            self._unanswered(str(code))

    def _unanswered(self, reason: str) -> None:
        fault = why(self._mqtt.host, self._mqtt.port, self._access.tls, self._context)
        self._events.put(Fatal(fault) if fault else Disconnected(reason))
        if fault:
            self._answered.set()

    def _on_subscribe(
        self, client: Client, userdata: Any, mid: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        filters = self._filters if len(codes) == len(self._filters) else self._filters[-1:]  # one more, by `listen`
        # Below $ a broker speaks of itself, if it likes: nothing depends on it.
        refused = [f for f, code in zip(filters, codes, strict=False) if code.is_failure and not f.startswith("$")]
        if refused:
            words = f"the broker refused the subscription to {refused[0]}: check its ACL"
            self._events.put(Fatal(BrokerError(words)))

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no broker should; raised from here it would end the thread, unnoticed
            topic = NO_TOPIC
        if message.qos or self._events.qsize() < MAX_WAITING:
            self._events.put(Received(topic, bytes(message.payload), message.mid, message.qos, message.retain))

    def _on_publish(
        self, client: Client, userdata: Any, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._events.put(Published(f"{code} ({code.value})" if code.is_failure else ""))


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
