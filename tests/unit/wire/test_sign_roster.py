"""What operators and the root sign: every change follows the one before, and nothing unproved is signed."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from floe import merkle
from floe.documents import Aggregator, Keys, Member, Operator, RosterReply
from floe.errors import Refused
from floe.hpke import sealing_text
from floe.identity import Identity
from floe.roster import (
    Anchor,
    Roster,
    check_follows,
    endorsement_bytes,
    hash_of_card,
    read_card,
    read_delegation,
    read_head,
)
from floe.sign_roster import (
    Change,
    Place,
    approve,
    check_rotation,
    delegate,
    first_head,
    next_head,
    place_of,
    revoke,
    with_next_epoch,
)

NOW = 1_800_000_000


def identity(name: str, seed: int) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def keys_of(seed: int) -> Keys:
    sealing = X25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key()
    return Keys(identity("", seed).key, sealing_text(sealing), ("chacha20-poly1305",))


ROOT, OPA, BEA, MAIN = (identity(name, seed) for name, seed in (("root", 1), ("opa", 2), ("bea", 3), ("main", 4)))
ANCHOR = Anchor("floe", ROOT.key)
DELEGATION = delegate(ANCHOR, ROOT, [Operator("opa", OPA.key)], 1, NOW + 1000)


class Federation:
    """What an honest aggregator would keep: the cards by name, and the head."""

    def __init__(self) -> None:
        aggregator = Aggregator("main", MAIN.key, keys_of(4).sealing, 1)
        self.roster = read_head(first_head(ANCHOR, OPA, aggregator, DELEGATION, NOW), ANCHOR)
        self.cards: dict[str, str] = {}

    def hashes(self) -> dict[str, bytes]:
        return {name: hash_of_card(text) for name, text in self.cards.items()}

    def reply(self, name: str) -> RosterReply:
        return RosterReply(
            federation="floe", sender="main", key=MAIN.key, proof="", seq=1, to="opa", to_key=OPA.key, command=1,
            done=True, detail="", head=self.roster.text, card=self.cards.get(name, ""),
            place=merkle.prove(self.hashes(), name),
        )  # fmt: skip

    def place(self, name: str) -> Place:
        return place_of(self.reply(name), self.roster, ANCHOR, name)

    def take(self, change: Change) -> Roster:
        """As an aggregator does: the head leads to the root, follows, and counts the cards."""
        roster = read_head(change.head, ANCHOR)
        check_follows(roster, self.roster)
        assert roster.version == self.roster.version + 1
        if change.card:
            card = read_card(change.card, ANCHOR)
            assert (card.seq, card.sender, card.key) == (roster.version, roster.head.sender, roster.head.key)
            self.cards[card.member] = change.card
        assert roster.head.tree == merkle.root_of(self.hashes())
        assert roster.head.count == len(self.cards)
        self.roster = roster
        return roster

    def approve(self, name: str, keys: Keys) -> Roster:
        return self.take(approve(self.roster, OPA, self.place(name), keys, NOW))


@pytest.fixture
def made() -> Federation:
    return Federation()


def test_every_change_follows_and_counts_the_cards(made: Federation) -> None:
    groups = [made.approve(f"device-{number}", keys_of(10 + number)).head.group for number in range(8)]
    assert groups == [1] * 8
    assert made.take(revoke(made.roster, OPA, made.place("device-3"), NOW)).head.group == 10
    assert made.approve("device-5", keys_of(99)).head.group == 11
    assert made.approve("device-9", keys_of(98)).head.group == 11
    assert made.roster.version == 12


def test_the_group_changes_when_somebody_s_key_counts_no_more_and_only_then(made: Federation) -> None:
    made.approve("ann", keys_of(10))
    assert made.approve("ann", keys_of(10)).head.group == 1
    assert made.approve("ann", keys_of(11)).head.group == 4
    made.take(revoke(made.roster, OPA, made.place("ann"), NOW))
    assert made.approve("ann", keys_of(12)).head.group == 5, "the revocation changed it; nobody else is shut out"


def test_an_unproved_place_is_refused(made: Federation) -> None:
    made.approve("ann", keys_of(10))
    made.approve("bob", keys_of(11))
    good = made.reply("ann")
    hidden = msgspec.structs.replace(good, card="")
    others = msgspec.structs.replace(good, card=made.cards["bob"])
    none = msgspec.structs.replace(good, place=None)
    elsewhere = msgspec.structs.replace(good, place=merkle.prove({}, "ann"))
    for reply in (hidden, others, none, elsewhere):
        with pytest.raises(Refused) as refused:
            place_of(reply, made.roster, ANCHOR, "ann")
        assert refused.value.reason == "roster"
    assert place_of(good, made.roster, ANCHOR, "ann").text == made.cards["ann"]


def test_an_older_card_of_a_device_is_refused(made: Federation) -> None:
    made.approve("ann", keys_of(10))
    old = made.cards["ann"]
    made.take(revoke(made.roster, OPA, made.place("ann"), NOW))
    reply = msgspec.structs.replace(made.reply("ann"), card=old)
    with pytest.raises(Refused, match="not what version 3 counts"):
        place_of(reply, made.roster, ANCHOR, "ann")


@pytest.mark.parametrize(("name", "role"), [("opa", "an operator"), ("main", "an aggregator's lineage")])
def test_a_name_with_another_role_is_no_device_s(made: Federation, name: str, role: str) -> None:
    with pytest.raises(Refused, match=f"{name!r} is the name of {role}"):
        approve(made.roster, OPA, made.place(name), keys_of(10), NOW)


@pytest.mark.parametrize("name", ["root", "broker", "chunk"])
def test_a_name_that_no_device_may_have_is_not_approved(made: Federation, name: str) -> None:
    with pytest.raises(Refused, match=f"'{name}': no device is called .* under another --id"):
        approve(made.roster, OPA, made.place(name), keys_of(10), NOW)


def test_a_name_that_no_certificate_holds_is_not_approved_where_there_shall_be_one(made: Federation) -> None:
    name, with_tls = "a" * 58, msgspec.structs.replace(keys_of(10), tls="A" * 122)
    with pytest.raises(Refused, match="a certificate holds 57 of a device's name"):
        approve(made.roster, OPA, made.place(name), with_tls, NOW)
    made.take(approve(made.roster, OPA, made.place(name[1:]), with_tls, NOW))
    made.take(approve(made.roster, OPA, made.place(name), keys_of(11), NOW))


def test_only_who_has_a_card_is_revoked(made: Federation) -> None:
    with pytest.raises(Refused, match="has no 'ann'"):
        revoke(made.roster, OPA, made.place("ann"), NOW)


def test_a_rotation_needs_the_word_of_the_approved_key(made: Federation) -> None:
    made.approve("ann", keys_of(10))
    new = keys_of(20)
    good = identity("ann", 10).sign_bytes(endorsement_bytes("floe", "ann", new))
    member = Member("ann", "rotating", new, NOW, endorsement=good)
    check_rotation(member, made.place("ann"), "floe")
    by_another = identity("ann", 11).sign_bytes(endorsement_bytes("floe", "ann", new))
    for wrong in (
        msgspec.structs.replace(member, endorsement=by_another),
        msgspec.structs.replace(member, keys=keys_of(21)),
        msgspec.structs.replace(member, endorsement=""),
    ):
        with pytest.raises(Refused):
            check_rotation(wrong, made.place("ann"), "floe")
    made.take(revoke(made.roster, OPA, made.place("ann"), NOW))
    with pytest.raises(Refused, match="not approved"):
        check_rotation(member, made.place("ann"), "floe")
    with pytest.raises(Refused, match="not approved"):
        check_rotation(member, replace(made.place("ann"), card=None), "floe")


def test_time_never_goes_back_with_an_operator_s_clock(made: Federation) -> None:
    made.take(next_head(made.roster, OPA, NOW + 50))
    assert made.take(next_head(made.roster, OPA, NOW - 10**6)).head.issued == NOW + 50


def test_another_delegation_lets_another_operator_sign(made: Federation) -> None:
    text = delegate(ANCHOR, ROOT, [Operator("bea", BEA.key)], 2, NOW + 2000)
    with pytest.raises(Refused, match="no operator"):
        made.take(next_head(made.roster, OPA, NOW, delegation=text))
    made.take(next_head(made.roster, BEA, NOW, delegation=text))
    assert made.roster.delegation == read_delegation(text, ANCHOR)
    with pytest.raises(Refused, match="no operator"):
        made.take(next_head(made.roster, OPA, NOW))


def test_the_next_epoch_is_of_one_lineage(made: Federation) -> None:
    made.take(next_head(made.roster, OPA, NOW, aggregators=with_next_epoch(made.roster, "main")))
    assert made.roster.aggregator("main").epoch == 2
    with pytest.raises(Refused, match="no aggregator 'other'"):
        with_next_epoch(made.roster, "other")
