"""The bytes of MQTT that a proxy must understand (3.1.1 and 5): CONNECT's level, PUBLISH, PUBACK. Pure."""

from __future__ import annotations

from dataclasses import dataclass

CONNECT, PUBLISH, PUBACK = 1, 3, 4
DUP = 0x08


@dataclass(frozen=True)
class Packet:
    """One control packet (MQTT 5, 2.1): the first byte, and all after the remaining length."""

    first: int
    body: bytes

    @property
    def kind(self) -> int:
        return self.first >> 4

    @property
    def qos(self) -> int:
        return self.first >> 1 & 3

    def to_bytes(self) -> bytes:
        return bytes([self.first]) + _varint(len(self.body)) + self.body


@dataclass(frozen=True)
class Published:
    """A PUBLISH taken apart. `head` is everything before the payload."""

    topic: str
    mid: int
    head: bytes
    payload: bytes


def level_of(connect: Packet) -> int:
    """The protocol level of a CONNECT: 4 is 3.1.1, 5 is 5 (MQTT 5, 3.1.2.2)."""
    return connect.body[6]


def client_of(connect: Packet) -> str:
    """The client identifier of a CONNECT (MQTT 5, 3.1.3.1)."""
    at = 10
    if level_of(connect) == 5:
        length, size = read_varint(connect.body[at : at + 4])
        at += size + length
    length = int.from_bytes(connect.body[at : at + 2], "big")
    return connect.body[at + 2 : at + 2 + length].decode()


def mid_of(puback: Packet) -> int:
    return int.from_bytes(puback.body[:2], "big")


def puback(mid: int) -> bytes:
    """A PUBACK that means success in both versions (MQTT 5, 3.4.2.1)."""
    return Packet(PUBACK << 4, mid.to_bytes(2, "big")).to_bytes()


def publish(topic: str, payload: bytes, level: int, *, retained: bool = False) -> bytes:
    """A PUBLISH at QoS 0, without properties (MQTT 5, 3.3)."""
    body = _text(topic) + (b"\0" if level == 5 else b"") + payload
    return Packet(PUBLISH << 4 | retained, body).to_bytes()


def renamed(found: Published, topic: str) -> bytes:
    """The head of a PUBLISH with another topic."""
    return _text(topic) + found.head[len(_text(found.topic)) :]


def take_apart(packet: Packet, level: int) -> Published:
    """Topic, packet identifier (0 at QoS 0) and payload of a PUBLISH (MQTT 5, 3.3)."""
    body = packet.body
    at = 2 + int.from_bytes(body[:2], "big")
    topic, mid = body[2:at].decode(), 0
    if packet.qos:
        mid, at = int.from_bytes(body[at : at + 2], "big"), at + 2
    if level == 5:
        length, size = read_varint(body[at : at + 4])
        at += size + length
    return Published(topic, mid, body[:at], body[at:])


def read_varint(data: bytes) -> tuple[int, int]:
    """A variable byte integer (MQTT 5, 1.5.5) and how many bytes it took; 0 bytes if it goes on after `data`."""
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, index + 1
    return value, 0


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = divmod(value, 128)
        out.append(byte | 128 if value else byte)
        if not value:
            return bytes(out)
