"""Enrolment without a broker: the aggregator's desk on a wire that keeps what is said, an operator, and devices."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aggregator.desk import Desk
from aggregator.enrolment import Enrolment
from aggregator.log import Log
from aggregator.members import Members
from edge_client.membership import Membership
from floe.documents import Aggregator, Card, Join, JoinReply, JoinRequest, Keys, Operator, RosterCommand, RosterReply
from floe.hpke import sealing_text
from floe.identity import Identity, load_identity, load_sealing_key
from floe.keyring import EnrolledKeyring, Keyring, Ring
from floe.messages import M
from floe.own_keys import OwnKeys, load_keys
from floe.roster import Anchor, Roster, endorsement_bytes, read_head, seal_join, short_hash_of_card
from floe.sequence import Sequence
from floe.session import Received
from floe.settings import Config, Mqtt
from floe.sign_roster import Change, Place, approve, delegate, first_head, place_of, revoke
from floe.signing import verify
from floe.topics import CurrentRoster, DeviceJoin, EntryTo, OperatorRoster, Topic
from floe.wire import Wire

FEDERATION, LINEAGE = "floe", "main"
UNTIL = 4_000_000_000  # when the first delegation ends
HEAD = str(CurrentRoster(FEDERATION, LINEAGE))


class QuietWire(Wire):
    """Keeps what would be published: all of it in `sent`, what is retained in `retained`, by topic."""

    def __init__(self, identity: Identity, sequence: Path, retained: dict[str, bytes] | None = None) -> None:
        super().__init__(Mqtt(), FEDERATION, identity, Keyring("plaintext", None), Sequence(sequence), None, [])
        self.sent: list[tuple[str, bytes]] = []
        self.retained = {} if retained is None else retained

    def send_bytes(self, topic: Topic, payload: bytes, *, retain: bool = False) -> None:
        self.sent.append((str(topic), payload))
        if retain:
            self.retained[str(topic)] = payload

    def newest(self, kind: type[M]) -> M:
        return verify(self.sent[-1][1], kind)

    def topics(self) -> list[str]:
        """The last levels of what was said since the last call."""
        told = [topic.removeprefix(f"floe/{FEDERATION}/lineage/{LINEAGE}/") for topic, _ in self.sent]
        self.sent.clear()
        return told


def received(topic: Topic, payload: bytes) -> Received:
    return Received(str(topic), payload, 0, 0, False)


class Office:
    """One aggregator's roster in `folder`, with operator `opa`. `retained` is what the broker keeps."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.clock = folder, clock
        self.state = folder / "state"
        self.root, self.operator = (load_identity(folder / "offline", name) for name in ("root", "opa"))
        self.anchor = Anchor(FEDERATION, self.root.key)
        self.identity = load_identity(self.state / "keys", LINEAGE)
        self.sealing = load_sealing_key(self.state / "keys", LINEAGE)
        self.retained: dict[str, bytes] = {}
        self.changes: list[tuple[Card | None, bool]] = []
        (self.state / "head").write_text(self.first())
        self.start()
        self.desk.greet()

    def first(self) -> str:
        return first_head(self.anchor, self.operator, self.aggregator(), self.delegation(), 1000)

    def delegation(self, *operators: Identity, serial: int = 1, until: int = UNTIL) -> str:
        who = [Operator(found.name, found.key) for found in operators or (self.operator,)]
        return delegate(self.anchor, self.root, who, serial, until)

    def aggregator(self, **changes: Any) -> Aggregator:
        fields = {"lineage": LINEAGE, "signing": self.identity.key, "epoch": 1}
        return Aggregator(**{**fields, "sealing": sealing_text(self.sealing.public_key()), **changes})

    def start(self) -> None:
        self.log = Log(self.folder / "log")
        self.ring = Ring()
        self.keyring = EnrolledKeyring("chacha20-poly1305", None, self.sealing, self.ring)
        key = self.identity.key
        self.members = Members(self.log, self.anchor, LINEAGE, key, self.keyring, self.state, clock=self.clock)
        self.enrolment = Enrolment(self.log, self.members, self.keyring, self.identity, self.state, clock=self.clock)
        self.wire = QuietWire(self.identity, self.state / "sequence", self.retained)
        config = Config(folder=self.folder)
        self.desk = Desk(config, self.wire, self.log, self.keyring, self.members, self.state, self._changed)

    def stop(self) -> None:
        self.log.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def back_up(self, name: str = "backup") -> Path:
        """A copy of the log, taken while nothing runs."""
        self.stop()
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.folder / "log", self.folder / name)
        self.start()
        return self.folder / name

    def restore(self, backup: Path) -> None:
        """The log as it was, a new process, and what the broker keeps is heard before anything is said."""
        self.stop()
        shutil.rmtree(self.folder / "log")
        shutil.copytree(backup, self.folder / "log")
        self.start()
        self.hear_retained()

    def hear_retained(self) -> None:
        """The retained head and entries come, as after a start."""
        if head := self.retained.get(HEAD):
            self.desk.receive(CurrentRoster(FEDERATION, LINEAGE), received(CurrentRoster(FEDERATION, LINEAGE), head))
        for topic, payload in list(self.retained.items()):
            if topic.endswith("/entry"):
                where = EntryTo(FEDERATION, LINEAGE, topic.split("/")[-2])
                self.desk.receive(where, received(where, payload))
        self.desk.greet()

    @property
    def roster(self) -> Roster:
        return self.members.roster

    def order(self, action: Any, by: Identity | None = None, **fields: Any) -> RosterReply:
        """The reply to an operator's command."""
        by = by or self.operator
        if action == "rotate" and (card := self.members.card(fields.get("name", ""))):
            fields = {"request": short_hash_of_card(card), **fields}
        command = RosterCommand(
            federation=FEDERATION,
            sender=by.name,
            key=by.key,
            proof="",
            seq=1,
            action=action,
            **{"to": LINEAGE, **fields},
        )
        topic = OperatorRoster(FEDERATION, by.name, LINEAGE)
        self.desk.receive(topic, received(topic, by.sign(command)))
        return self.wire.newest(RosterReply)

    def invite(self, name: str = "", until: int = UNTIL) -> str:
        """The token of a new invitation."""
        token = secrets.token_hex(16)
        digest = hashlib.sha256(bytes.fromhex(token)).hexdigest()
        assert self.order("invite", token=digest, name=name, until=until).done
        return token

    def place(self, name: str) -> Place:
        reply = self.order("show", name=name)
        return place_of(reply, read_head(reply.head, self.anchor), self.anchor, name)

    def approval(self, name: str, keys: Keys) -> Change:
        return approve(self.roster, self.operator, self.place(name), keys, 2000)

    def revocation(self, name: str) -> Change:
        return revoke(self.roster, self.operator, self.place(name), 2000)

    def change(self, made: Change) -> RosterReply:
        return self.order("change", card=made.card, head=made.head)

    def approve(self, name: str) -> RosterReply:
        """Let in who asks, whatever its number."""
        asked = self.order("show", name=name).members[0]
        assert asked.state in ("pending", "rotating"), asked
        return self.change(self.approval(name, asked.keys))

    def revoke(self, name: str) -> RosterReply:
        return self.change(self.revocation(name))

    def dump(self) -> list[str]:
        """All that the log says of the roster, and what is in memory."""
        tables = ("heads", "roster", "requests", "invitations", "devices")
        rows = [repr(row) for table in tables for row in self.log.db.execute(f"SELECT * FROM {table}").fetchall()]
        return [*rows, self.roster.text, repr(self.ring)]

    def _changed(self, card: Card | None, renewed: bool) -> None:
        self.changes.append((card, renewed))


class Unit:
    """A device of an office, without a process: its keys and its membership."""

    def __init__(self, office: Office, name: str, algorithm: Any = "ed25519") -> None:
        self.office, self.name = office, name
        self.state = office.folder / f"device-{name}"
        self.nonce = secrets.token_hex(16)
        self.start(algorithm)

    def start(self, algorithm: Any = "ed25519") -> None:
        self.keys = load_keys(self.state, self.name, algorithm)
        self.membership = Membership(self.state, self.office.anchor, self.name, LINEAGE, self.keys.sealing)

    @property
    def public(self) -> Keys:
        return self.keys.public(("chacha20-poly1305",))

    @property
    def approved(self) -> bool:
        return self.membership.is_approved(self.keys.identity.key)

    def request(self, token: str = "", keys: OwnKeys | None = None, nonce: str = "", **join: Any) -> JoinRequest:
        keys = keys or self.keys
        public = keys.public(("chacha20-poly1305",))
        content = Join(nonce or self.nonce, public, token, **join)
        recipient = sealing_text(self.office.sealing.public_key())
        sealed = seal_join(content, FEDERATION, LINEAGE, self.name, recipient)
        return JoinRequest(
            federation=FEDERATION, sender=self.name, key=public.signing, proof="", seq=1, to=LINEAGE, sealed=sealed
        )

    def ask(self, token: str = "", keys: OwnKeys | None = None, nonce: str = "", **join: Any) -> JoinReply:
        """The aggregator's reply to a request of this device."""
        keys = keys or self.keys
        topic = DeviceJoin(FEDERATION, self.name, LINEAGE)
        payload = keys.identity.sign(self.request(token, keys, nonce, **join))
        self.office.desk.receive(topic, received(topic, payload))
        return self.office.wire.newest(JoinReply)

    def endorsement(self, keys: OwnKeys) -> str:
        """Of other keys, by the present one."""
        public = keys.public(("chacha20-poly1305",))
        return self.keys.identity.sign_bytes(endorsement_bytes(FEDERATION, self.name, public))

    def hear(self) -> None:
        """What the broker keeps for this device."""
        if head := self.office.retained.get(HEAD):
            self.membership.on_head(head)
        if entry := self.entry:
            self.membership.on_entry(entry)

    @property
    def entry(self) -> bytes | None:
        return self.office.retained.get(str(EntryTo(FEDERATION, LINEAGE, self.name)))

    def join(self) -> None:
        """Invited, asked, approved, told."""
        assert self.ask(self.office.invite(self.name)).state == "pending"
        assert self.office.approve(self.name).done
        self.hear()
        assert self.approved
