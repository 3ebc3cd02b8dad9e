"""Any sequence of what operators, devices and mishaps do to the roster, over the real objects: what always holds."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from helpers.office import FEDERATION, HEAD, LINEAGE, Office, Unit
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from floe.documents import Card, Entry, Member
from floe.errors import Refused
from floe.hpke import open_with, sealing_text
from floe.own_keys import OwnKeys, has_next, load_next, take_next
from floe.roster import group_info, read_card
from floe.sign_roster import Change, next_head
from floe.signing import from_text, verify

NAMES = ("ann", "bob", "cy")
names = st.sampled_from(NAMES)


class Enrolment(RuleBasedStateMachine):
    """Three devices, one operator; the broker keeps what is retained, and lets anybody play again what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="floe-rules-"))
        self.office = Office(self.folder)
        self.units = {name: Unit(self.office, name) for name in NAMES}
        self.keys: dict[str, list[OwnKeys]] = {name: [unit.keys] for name, unit in self.units.items()}
        self.entries: dict[str, list[bytes]] = {name: [] for name in NAMES}
        self.heads: list[str] = [self.office.roster.text]
        self.changes: list[Change] = []
        self.backup: Path | None = None
        self.tokens = ["0" * 32]
        self.version = 1
        self.kept: dict[str, tuple[int, int]] = {}

    def teardown(self) -> None:
        self.office.stop()
        shutil.rmtree(self.folder)

    def note(self) -> None:
        """What was said, for whoever listens."""
        for topic, payload in self.office.wire.sent:
            if topic.endswith("/entry"):
                self.entries[topic.split("/")[-2]].append(payload)
            elif topic == HEAD and payload.decode() != self.heads[-1]:
                self.heads.append(payload.decode())
        self.office.wire.sent.clear()

    def card(self, name: str) -> Card | None:
        text = self.office.members.card(name)
        return read_card(text, self.office.anchor) if text else None

    def asked(self, name: str) -> str:
        """The state of the open request of a name."""
        found = self.waiting(name)
        return found.state if found else ""

    def waiting(self, name: str) -> Member | None:
        rows = self.office.order("show", name=name).members
        return rows[0] if rows and rows[0].state in ("pending", "rotating") else None

    def change(self, made: Change) -> None:
        self.changes.append(made)
        assert self.office.change(made).done
        self.version += 1
        self.note()

    @rule(name=names)
    def joins(self, name: str) -> None:
        unit, card = self.units[name], self.card(name)
        unit.nonce = secrets.token_hex(16)
        self.tokens.append(token := self.office.invite())
        member = card is not None and card.state == "approved" and card.keys == unit.public
        waiting = self.waiting(name)
        assert unit.ask(token).state == ("approved" if member else "refused" if waiting else "pending")
        assert member or waiting is None or self.waiting(name) == waiting, "who asks first waits, until it is decided"
        self.note()

    @rule(name=names, token=st.integers(0, 5), fresh=st.booleans())
    def asks_again(self, name: str, token: int, *, fresh: bool) -> None:
        """With an invitation of before, or of another; in any case it is let in by no more than that."""
        unit = self.units[name]
        before = self.office.members.approved()
        waiting = self.waiting(name)
        unit.ask(self.tokens[-1 - token % len(self.tokens)], nonce=secrets.token_hex(16) if fresh else "")
        assert self.office.members.approved() == before
        assert waiting is None or self.waiting(name) == waiting
        self.note()

    @rule(name=names)
    def approves(self, name: str) -> None:
        if self.asked(name):
            keys = self.office.order("show", name=name).members[0].keys
            self.change(self.office.approval(name, keys))
            card = self.card(name)
            assert card is not None
            assert (card.state, card.keys) == ("approved", keys)

    @rule(name=names)
    def rejects(self, name: str) -> None:
        rows, before = self.office.order("show", name=name).members, self.office.roster.text
        if self.asked(name):
            assert self.office.order("reject", name=name, request=rows[0].nonce).done
            assert self.asked(name) == ""
        else:
            self.is_refused("reject", name=name, request="0" * 32)
        assert self.office.roster.text == before
        self.note()

    @rule(name=names)
    def revokes(self, name: str) -> None:
        card = self.card(name)
        if card is not None and card.state == "approved":
            self.change(self.office.revocation(name))

    @rule(name=names)
    def rotates(self, name: str) -> None:
        card, unit = self.card(name), self.units[name]
        if card is None or card.state != "approved":
            self.is_refused("rotate", name=name)
            return
        assert self.office.order("rotate", name=name).done
        if card.keys == unit.public:
            following = load_next(unit.state, name)
            unit.nonce = secrets.token_hex(16)
            waiting = self.waiting(name)
            reply = unit.ask(keys=following, endorsement=unit.endorsement(following))
            again = waiting and (waiting.state, waiting.keys.signing) == ("rotating", following.identity.key)
            assert reply.state == ("pending" if waiting is None or again else "refused")
            self.keys[name].append(following)
        self.note()

    @rule(name=names)
    def hears(self, name: str) -> None:
        """What is retained; with its next keys, if the roster has them now."""
        unit = self.units[name]
        if unit.entry is not None and has_next(unit.state, name):
            card = read_card(verify(unit.entry, Entry).card, self.office.anchor)
            if card.keys.signing == load_next(unit.state, name).identity.key:
                take_next(unit.state, name)
                unit.start()
        card_now = self.card(name)
        if card_now is None or card_now.keys == unit.public or card_now.state == "revoked":
            unit.hear()
        approved = card_now is not None and card_now.state == "approved" and card_now.keys == unit.public
        assert unit.approved == approved
        if approved:
            assert unit.membership.ring.group_key == self.office.ring.group_key

    @rule(name=names, old=st.integers(0, 20))
    def hears_something_old(self, name: str, old: int) -> None:
        unit = self.units[name]
        for take, said in (
            (unit.membership.on_head, [head.encode() for head in self.heads]),
            (unit.membership.on_entry, self.entries[name]),
        ):
            if said:
                with suppress(Refused):
                    take(said[old % len(said)])

    @rule(name=names)
    def device_restarts(self, name: str) -> None:
        self.units[name].start()

    @rule()
    def aggregator_restarts(self) -> None:
        self.office.restart()
        self.office.desk.greet()
        self.note()

    @rule()
    def next_epoch(self) -> None:
        epoch = self.office.roster.aggregator(LINEAGE).epoch + 1
        aggregators = (self.office.aggregator(epoch=epoch),)
        self.change(next_head(self.office.roster, self.office.operator, 2000, aggregators=aggregators))

    @rule()
    def log_is_copied(self) -> None:
        self.backup = self.office.back_up()

    @precondition(lambda self: self.backup is not None)
    @rule()
    def log_is_restored(self) -> None:
        assert self.backup is not None
        newest = self.office.roster.text
        self.office.restore(self.backup)
        assert self.office.roster.text == newest
        self.note()

    @precondition(lambda self: self.changes)
    @rule(which=st.integers(0, 20))
    def change_is_played_again(self, which: int) -> None:
        made = self.changes[which % len(self.changes)]
        self.is_refused("change", card=made.card, head=made.head)

    @precondition(lambda self: len(self.changes) > 1)
    @rule(card=st.integers(0, 20))
    def change_is_mixed(self, card: int) -> None:
        made = next_head(self.office.roster, self.office.operator, 2000)
        texts = [change.card for change in self.changes if change.card]
        if texts:
            self.is_refused("change", card=texts[card % len(texts)], head=made.head)

    def is_refused(self, action: str, **fields: str) -> None:
        before = self.office.dump()
        assert not self.office.order(action, **fields).done
        assert self.office.dump() == before
        self.note()

    @invariant()
    def versions_only_grow(self) -> None:
        assert self.office.roster.version == self.version
        for name, unit in self.units.items():
            membership = unit.membership
            kept = (membership.ring.version, membership.card.seq if membership.card else 0)
            before = self.kept.get(name, (0, 0))
            assert kept[0] >= before[0]
            assert kept[1] >= before[1]
            assert kept[0] <= self.version
            self.kept[name] = kept

    @invariant()
    def the_group_key_is_for_who_is_approved_with_the_keys_of_the_roster_and_nobody_else(self) -> None:
        for name, unit in self.units.items():
            card = self.card(name)
            shut_in = card.keys.sealing if card is not None and card.state == "approved" else ""
            for keys in self.keys[name]:
                own = sealing_text(keys.sealing.public_key())
                found = {self.opened(keys, entry) for entry in self.entries[name]}
                assert (self.office.ring.group_key in found) == (own == shut_in), name
            if shut_in:
                assert unit.entry is not None
                newest = [keys for keys in self.keys[name] if sealing_text(keys.sealing.public_key()) == shut_in]
                assert self.opened(newest[0], unit.entry) == self.office.ring.group_key

    def opened(self, keys: OwnKeys, payload: bytes) -> bytes:
        """The group key of now that an entry holds for these keys."""
        entry = verify(payload, Entry)
        if not entry.group_key or entry.group != self.office.ring.group:
            return b""
        try:
            return open_with(
                keys.sealing, from_text(entry.group_key), group_info(FEDERATION, LINEAGE, entry.to, entry.group)
            )
        except Refused:
            return b""


Enrolment.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
)
TestEnrolment = Enrolment.TestCase
