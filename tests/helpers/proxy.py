"""A TCP proxy before a broker that drops, repeats, delays, disorders or alters PUBLISH packets, as a rule says.

It cuts and hangs the links of clients, too, by the names in their client identifiers (`floe-<name>-<key>`); it can keep
all that goes by, and say what it likes to a client.

Runs an event loop in a thread of its own. A dropped QoS 1 packet is acknowledged by the proxy, so that its sender
believes it was delivered: what a broker with a full queue does.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from helpers.packets import (
    CONNECT,
    DUP,
    PUBACK,
    PUBLISH,
    Packet,
    client_of,
    level_of,
    mid_of,
    puback,
    publish,
    read_varint,
    renamed,
    take_apart,
)

HELD_S = 1.0  # after which a message goes on that nothing has overtaken


@dataclass(frozen=True)
class Message:
    """A PUBLISH on its way. `upward`: from the client to the broker. `client`: the name at the other end."""

    upward: bool
    topic: str
    payload: bytes
    client: str = ""


@dataclass(frozen=True)
class Verdict:
    """How often a message goes on (0: dropped), after how many seconds, with which payload and topic (None: its own).

    `behind`: not before the next message of the same link and direction.
    """

    copies: int = 1
    delay_s: float = 0.0
    payload: bytes | None = None
    topic: str | None = None
    behind: bool = False


PASS, DROP, TWICE = Verdict(), Verdict(copies=0), Verdict(copies=2)
Rule = Callable[[Message], Verdict]


@dataclass(eq=False)
class _Link:
    """One client's connection: both writers, its protocol level, acknowledgements of copies that nobody asked for."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    level: int = 4
    name: str = ""
    extra: Counter[tuple[bool, int]] = field(default_factory=Counter)
    held: dict[bool, bytes] = field(default_factory=dict)

    def writer(self, *, upward: bool) -> asyncio.StreamWriter:
        return self.broker if upward else self.client

    def abort(self) -> None:
        self.client.transport.abort()
        self.broker.transport.abort()


class Proxy:
    """Listens on `port` of 127.0.0.1 for the broker on `broker_port`; `rule` may be replaced at any time.

    What the broker tells of itself, below `$SYS/`, goes by: it is no message of Floe.

    `seen` has every PUBLISH that came with its verdict, in order, without the payload; `overtaken` counts messages that
    another has overtaken. With `keep`, `kept` has every PUBLISH as it came, and `tape` every byte of every packet.
    """

    def __init__(self, broker_port: int, rule: Rule = lambda message: PASS, *, keep: bool = False) -> None:
        self.rule = rule
        self.port = 0
        self.seen: list[tuple[bool, str, Verdict]] = []
        self.kept: list[Message] = []
        self.tape = bytearray()
        self._keep = keep
        self.overtaken = 0
        self._cut: set[str] = set()
        self._hung: set[str] = set()
        self._broker_port = broker_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._links: set[_Link] = set()

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def cut(self, name: str) -> None:
        """End a client's connection, and every one that it makes, until `mend`."""
        self._cut.add(name)
        self._loop.call_soon_threadsafe(self._abort, name)

    def hang(self, name: str) -> None:
        """A client's connection stays, and nothing goes through it either way, until `mend`."""
        self._hung.add(name)

    def mend(self, name: str) -> None:
        """What a hung link has kept goes on, if its ends are still there."""
        self._cut.discard(name)
        self._hung.discard(name)

    def say(self, name: str, topic: str, payload: bytes, *, retained: bool = False) -> None:
        """Send a client a message that no broker has, as the broker would."""
        self._loop.call_soon_threadsafe(self._say, name, topic, payload, retained)

    def count(self, *, upward: bool, containing: str) -> tuple[Counter[str], Counter[str]]:
        """Per topic, how many messages came to the proxy, and how many of them it let through."""
        came, passed = Counter[str](), Counter[str]()
        for direction, topic, verdict in list(self.seen):
            if direction == upward and containing in topic:
                came[topic] += 1
                passed[topic] += verdict.copies > 0
        return came, passed

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        self._hung.clear()
        server.close()
        for link in self._links:
            link.abort()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_broker)
        self._links.add(link)
        await asyncio.gather(
            self._carry(reader, link, upward=True),
            self._carry(from_broker, link, upward=False),
        )
        self._links.remove(link)

    async def _carry(self, reader: asyncio.StreamReader, link: _Link, *, upward: bool) -> None:
        try:
            while True:
                packet = await _read(reader)
                if self._keep:
                    self.tape += packet.to_bytes()
                if packet.kind == CONNECT:
                    link.level, link.name = level_of(packet), client_of(packet)[len("floe-") : -9]
                    if link.name in self._cut:
                        link.abort()
                while link.name in self._hung:
                    await asyncio.sleep(0.05)
                if packet.kind == PUBLISH:
                    self._publish(packet, link, upward=upward)
                elif packet.kind == PUBACK and link.extra[not upward, mid_of(packet)]:
                    link.extra[not upward, mid_of(packet)] -= 1
                else:
                    link.writer(upward=upward).write(packet.to_bytes())
                await link.writer(upward=upward).drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            link.abort()

    def _publish(self, packet: Packet, link: _Link, *, upward: bool) -> None:
        found = take_apart(packet, link.level)
        if found.topic.startswith("$SYS/"):
            link.writer(upward=upward).write(packet.to_bytes())
            return
        message = Message(upward, found.topic, found.payload, link.name)
        if self._keep:
            self.kept.append(message)
        verdict = self.rule(message)
        self.seen.append((upward, found.topic, verdict))
        if not verdict.copies and packet.qos:
            link.writer(upward=not upward).write(puback(found.mid))
        head = found.head if verdict.topic is None else renamed(found, verdict.topic)
        body = head + (found.payload if verdict.payload is None else verdict.payload)
        for copy in range(verdict.copies):
            again = DUP if copy and packet.qos else 0
            link.extra[upward, found.mid] += 1 if again else 0
            out = Packet(packet.first | again, body).to_bytes()
            if verdict.behind and upward not in link.held:
                link.held[upward] = out
                self._loop.call_later(HELD_S, self._release, link, upward)
            elif verdict.delay_s:
                self._loop.call_later(verdict.delay_s, _write, link.writer(upward=upward), out)
            else:
                link.writer(upward=upward).write(out)
                self.overtaken += self._release(link, upward)

    def _release(self, link: _Link, upward: bool) -> bool:
        """Write what waits to be overtaken; whether something did."""
        out = link.held.pop(upward, None)
        if out is not None:
            _write(link.writer(upward=upward), out)
        return out is not None

    def _say(self, name: str, topic: str, payload: bytes, retained: bool) -> None:
        for link in self._links:
            if link.name == name:
                _write(link.client, publish(topic, payload, link.level, retained=retained))

    def _abort(self, name: str) -> None:
        for link in [link for link in self._links if link.name == name]:
            link.abort()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


async def _read(reader: asyncio.StreamReader) -> Packet:
    first = (await reader.readexactly(1))[0]
    length = b""
    while not length or not read_varint(length)[1]:
        length += await reader.readexactly(1)
    return Packet(first, await reader.readexactly(read_varint(length)[0]))
