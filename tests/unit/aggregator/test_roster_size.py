"""A roster of thousands: one approval is one entry and one head on the wire, whatever the others are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from helpers.wire import ANN, EVE

from aggregator.log import Log
from aggregator.server import Aggregator
from floe import merkle
from floe.documents import Aggregator as Listed
from floe.documents import Card, Entry, Head, Keys, Operator, RosterCommand, RosterReply
from floe.hpke import sealing_text
from floe.identity import Identity, load_sealing_key
from floe.keyring import EnrolledKeyring, Ring
from floe.roster import Anchor, hash_of_card, read_head
from floe.session import Received
from floe.settings import Config
from floe.sign_roster import Change, Place, approve, delegate, first_head, revoke
from floe.signing import verify
from floe.topics import CurrentRoster, EntryTo, OperatorRoster, RosterReplyTo, parse

MANY, FEW = 5000, 20
ROOT, OPERATOR, OURS = EVE, Identity("olga", ANN.private), Identity("main", Ed25519PrivateKey.generate())
ANCHOR = Anchor("floe", ROOT.key)


class Scene:
    """An aggregator with a roster of many devices, not connected: what it says is noted."""

    def __init__(self, folder: Path, log: Log, devices: int) -> None:
        state = folder / "state"
        sealing = load_sealing_key(state / "keys", "main")
        self.keys = Keys(OPERATOR.key, sealing_text(sealing.public_key()), ("chacha20-poly1305",))
        cards = {f"device-{number}": self._card(f"device-{number}") for number in range(devices)}
        (state / "head").write_text(self._head({name: hash_of_card(text) for name, text in cards.items()}))
        log.db.table("roster").insert_all(
            {"device": name, "state": "approved", "version": 1, "signing": self.keys.signing,
             "suite": self.keys.suites[0], "hash": hash_of_card(text).hex(), "card": text, "changed_at": "now"}
            for name, text in cards.items()
        )  # fmt: skip
        log.db.conn.commit()
        keyring = EnrolledKeyring("chacha20-poly1305", None, sealing, Ring())
        self.aggregator = Aggregator(Config(folder=folder), OURS, keyring, log, state, ANCHOR)
        self.said: list[tuple[str, bytes]] = []
        self.aggregator.wire.session.publish = (  # type: ignore[method-assign]
            lambda topic, payload, *, retain=False: self.said.append((topic, payload))
        )
        self._seq = 0

    def _card(self, name: str) -> str:
        card = Card(
            federation="floe", sender="olga", key=OPERATOR.key, proof="", seq=1, member=name, state="approved",
            keys=self.keys,
        )  # fmt: skip
        return OPERATOR.sign(card).decode()

    def _head(self, cards: dict[str, bytes]) -> str:
        delegation = delegate(ANCHOR, ROOT, [Operator("olga", OPERATOR.key)], 1, int(time.time()) + 86400)
        ours = Listed("main", OURS.key, self.keys.sealing, 1)
        empty = verify(first_head(ANCHOR, OPERATOR, ours, delegation, 0).encode(), Head)
        head = msgspec.structs.replace(empty, tree=merkle.root_of(cards), count=len(cards))
        return OPERATOR.sign(head).decode()

    def order(self, action: str, **fields: Any) -> RosterReply:
        """The reply to the operator's command."""
        self._seq += 1
        command = RosterCommand(
            federation="floe", sender="olga", key=OPERATOR.key, proof="", seq=self._seq, to="main", action=action,
            **fields,
        )  # fmt: skip
        topic = str(OperatorRoster("floe", "olga", "main"))
        self.aggregator._receive(Received(topic, OPERATOR.sign(command), 0, 0, retained=False))
        return verify(self.said[-1][1], RosterReply)

    def change(self, name: str, how: str) -> None:
        shown = self.order("show", name=name)
        roster = read_head(shown.head, ANCHOR)
        assert shown.place is not None
        card = verify(shown.card.encode(), Card) if shown.card else None
        place, signed = Place(name, shown.card, card, shown.place), Change("", "")
        if how == "approve":
            signed = approve(roster, OPERATOR, place, self.keys, int(time.time()))
        else:
            signed = revoke(roster, OPERATOR, place, int(time.time()))
        self.said.clear()
        reply = self.order("change", card=signed.card, head=signed.head)
        assert reply.done, reply.detail


@contextmanager
def scene_of(folder: Path, devices: int) -> Iterator[Scene]:
    with closing(Log(folder / "log")) as log:
        yield Scene(folder, log, devices)


def test_approving_one_more_of_thousands_is_one_head_and_one_entry(tmp_path: Path) -> None:
    with scene_of(tmp_path, MANY) as scene:
        scene.change("newcomer", "approve")
        topics = [parse(topic) for topic, _ in scene.said]
        entry = EntryTo("floe", "main", "newcomer")
        assert topics == [CurrentRoster("floe", "main"), entry, RosterReplyTo("floe", "main", "olga")]
        head = read_head(scene.said[0][1].decode(), ANCHOR)
        assert (head.version, head.head.count, head.head.group) == (2, MANY + 1, 1)
        assert verify(scene.said[1][1], Entry).to == "newcomer"
        assert sum(len(payload) for _, payload in scene.said) < 8192


def test_what_proves_a_place_among_thousands_is_small(tmp_path: Path) -> None:
    with scene_of(tmp_path, MANY) as scene:
        shown = scene.order("show", name="device-7")
        assert shown.place is not None
        assert len(shown.place.path) < 40
        assert len(scene.said[-1][1]) < 8192


def test_revoking_one_is_an_entry_to_each_for_models_have_another_key(tmp_path: Path) -> None:
    with scene_of(tmp_path, FEW) as scene:
        scene.change("device-9", "revoke")
        topics = [parse(text) for text, _ in scene.said]
        to = [topic.device for topic in topics if isinstance(topic, EntryTo)]
        assert sorted(to) == sorted(f"device-{number}" for number in range(FEW)), "each is told once"
