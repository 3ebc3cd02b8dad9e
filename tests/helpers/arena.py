"""Where attacks are tried: a federation of real processes, all of whose messages go through a broker that is hostile.

Each attack is tried with the one defence switched off that stops it, where it must succeed, and without.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from floe.identity import Identity, load_identity
from floe.keyring import EnrolledKeyring, Keyring, Ring
from floe.messages import Command, M, Round
from floe.own_keys import load_keys
from floe.sequence import Sequence
from floe.session import Connected, Published
from floe.settings import Mqtt
from floe.signing import from_text, verify
from floe.topics import OperatorCommand
from floe.wire import Wire
from helpers.attacker import Attacker
from helpers.broker import broker_on, free
from helpers.enrolment import OPERATOR, Enrolled
from helpers.federation import LINEAGE, NAME, Federation, Sections
from helpers.process import Process
from helpers.proxy import PASS, Message, Proxy

ONE_ROUND: Sections = {
    "rounds": {"count": 1, "devices": 2, "quorum": 1, "grace_s": 30.0, "deadline_s": 40.0},
    "plan": {"model": "held"},
}
WEAK = ("helpers.undefended",)


class Arena:
    """A federation behind `proxy`. `defended`: its processes are Floe's own, in which nothing can be switched off."""

    def __init__(self, federation: Federation, proxy: Proxy, *, defended: bool) -> None:
        self.federation, self.proxy, self.defended = federation, proxy, defended
        self.folder = federation.folder
        self.by = ("floe",) if defended else WEAK

    def aggregator(self) -> Process:
        return self.federation.aggregator(by=self.by)

    def client(self, device: str) -> Process:
        return self.federation.client(device, by=self.by)

    @contextmanager
    def without(self, *defences: str) -> Iterator[None]:
        """While the block lasts, an undefended arena lacks these defences."""
        switches = [] if self.defended else [self.folder / f"off-{name}" for name in defences]
        try:
            for switch in switches:
                switch.touch()
            yield
        finally:
            self.proxy.rule = lambda message: PASS
            for switch in switches:
                switch.unlink()

    def judge(self, succeeded: Callable[[], object], refused: Callable[[], object]) -> None:
        """The attack has been made: refused where there is the defence, and only there."""
        if self.defended:
            self.federation.wait(lambda: bool(refused()), "the attack was to be refused")
            assert not succeeded(), "refused, and it succeeded nevertheless"
        else:
            self.federation.wait(lambda: bool(succeeded()), "without its defence the attack was to succeed")

    def heard(self, fits: Callable[[Message], bool], *, count: int = 1) -> Message:
        """The newest message that goes by and fits, once there are so many."""
        found: list[Message] = []

        def there() -> bool:
            found[:] = [message for message in list(self.proxy.kept) if fits(message)]
            return len(found) >= count

        self.federation.wait(there, "a message was to go by")
        return found[-1]

    def newest(self, ending: str, client: str = LINEAGE, *, upward: bool = True) -> Message:
        """The newest message that a client has published (or heard) on a topic with this ending."""
        return self.heard(lambda m: (m.upward, m.client) == (upward, client) and m.topic.endswith(ending))

    def read(self, kind: type[M], ending: str, client: str = LINEAGE) -> M:
        return verify(self.newest(ending, client).payload, kind)

    def refusals(self, device: str, reason: str) -> int:
        """How many messages of a device the aggregator has counted as refused for a reason."""
        rows = self.federation.query("SELECT count FROM refusals WHERE device = ? AND reason = ?", device, reason)
        return sum(row["count"] for row in rows)

    def counted(self, device: str, reason: str) -> Callable[[], bool]:
        """Whether there are more such refusals than now."""
        before = self.refusals(device, reason)
        return lambda: self.refusals(device, reason) > before

    def said(self, process: Process, text: str) -> Callable[[], bool]:
        """Whether a process has said it once more than until now."""
        before = process.said().count(text)
        return lambda: process.said().count(text) > before

    def told(self, ending: str, text: str) -> Callable[[], bool]:
        """Whether the aggregator has said a text, once more than until now, on a topic with this ending."""

        def times() -> int:
            kept = [m for m in list(self.proxy.kept) if m.upward and m.client == LINEAGE and m.topic.endswith(ending)]
            return sum(text.encode() in m.payload for m in kept)

        before = times()
        return lambda: times() > before

    @contextmanager
    def round(self, hold: str = "") -> Iterator[int]:
        """An operator orders one more round, in which a and b take part: its number, once it is open.

        It stays open for the block if a device is held, and is closed after it.
        """
        number = self.read(Round, "/main/round").phase.round + 1
        if hold:
            (self.folder / f"hold-{hold}-{number}").touch()
        self.order("start")
        self.federation.until("SELECT * FROM rounds WHERE round = ?", number)
        self.heard(lambda m: m.client == LINEAGE and m.topic.endswith("/round") and _is_open(m.payload, number))
        try:
            yield number
        finally:
            (self.folder / f"hold-{hold}-{number}").unlink(missing_ok=True)
        self.heard(lambda m: m.client == LINEAGE and m.topic.endswith("/round") and _is_over(m.payload, number))

    def release(self, device: str, number: int) -> None:
        """A held device may begin."""
        (self.folder / f"hold-{device}-{number}").unlink()

    def order(self, action: str) -> bytes:
        """An operator orders the aggregator about; what it said."""
        sequence = Sequence(self.folder / "state" / "by-test")
        assert isinstance(self.federation, Enrolled)
        mqtt, nobody = Mqtt(port=self.proxy.port), Keyring("plaintext", None)
        wire = Wire(mqtt, NAME, self.federation.operator, nobody, sequence, None, [])
        wire.session.connect(lambda: False, print)
        while not isinstance(wire.session.next(5), Connected):
            pass
        seq, rounds = time.time_ns() // 1000, int(action == "start")
        payload = wire.make(Command, seq=seq, to=LINEAGE, action=action, rounds=rounds)[1]
        wire.send_bytes(OperatorCommand(NAME, OPERATOR, LINEAGE), payload)
        self.federation.wait(lambda: isinstance(wire.session.next(0.1), Published), "the order was to be given")
        wire.close()
        return payload

    def accepted(self, device: str, number: int) -> list[dict[str, Any]]:
        sql = "SELECT * FROM updates WHERE device = ? AND round = ? AND task = 'train' AND outcome = 'accepted'"
        return self.federation.query(sql, device, number)

    def ended(self, device: str, number: int) -> list[dict[str, Any]]:
        """Updates that were received to their end, for good or ill."""
        sql = "SELECT * FROM updates WHERE device = ? AND round = ? AND task = 'train' AND bytes > 0"
        return self.federation.query(sql, device, number)

    def asked(self, transfer: str) -> bool:
        """Whether the aggregator has asked for chunks of a transfer."""
        wants = [m for m in list(self.proxy.kept) if m.upward and m.client == LINEAGE and m.topic.endswith("/want")]
        return any(json.loads(want.payload)["transfer"] == transfer for want in wants)

    @property
    def aggregator_identity(self) -> Identity:
        return load_identity(self.folder / "state" / f"aggregator-{LINEAGE}" / "keys", LINEAGE)

    def group_keyring(self, group: int) -> EnrolledKeyring:
        """What each member has to open, or seal, models of a version of the group key."""
        path = self.folder / "state" / f"aggregator-{LINEAGE}" / "keys" / f"group-{group}.key"
        ring = Ring(group_key=from_text(path.read_text()), group=group)
        made = load_keys(self.folder / "state" / "device-c", "c")
        return EnrolledKeyring("chacha20-poly1305", None, made.sealing, ring)

    def attacker(self, name: str, keys: str = "") -> Attacker:
        """Somebody who speaks as `name`, with the keys of device `keys`; without any, with keys of its own."""
        return Attacker(self, name, keys)


@contextmanager
def arena_on(folder: Path, template: Path, *, defended: bool, sections: Any = None) -> Iterator[Arena]:
    """An enrolled federation, its broker and the proxy between; nothing of it runs yet."""
    with broker_on(folder / "broker", free()) as broker, Proxy(broker.port, keep=True) as proxy:
        federation = Enrolled(folder / "federation", proxy.port, template)
        federation.configure(sections or ONE_ROUND)
        try:
            yield Arena(federation, proxy, defended=defended)
        finally:
            federation.close()


def _is_open(payload: bytes, number: int) -> bool:
    order = verify(payload, Round)
    return (order.phase.round, order.phase.task, order.state) == (number, "train", "open")


def _is_over(payload: bytes, number: int) -> bool:
    order = verify(payload, Round)
    return order.phase.round >= number and order.state == "finished"
