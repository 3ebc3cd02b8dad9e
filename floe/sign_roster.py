"""What an operator or the root signs: the next card and head from the roster as it is, the next delegation. Pure.

An aggregator is not believed here: a card's place is verified against the head's tree before anything is signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from floe import merkle
from floe.documents import ROOT, Aggregator, Card, Delegation, Head, Keys, Member, Operator, Proof, RosterReply
from floe.errors import Refused
from floe.identity import Identity
from floe.names import fault_of
from floe.roster import Anchor, Roster, check_endorsed, hash_of_card, number_of, read_card

EMPTY_TREE = merkle.EMPTY.hex()


@dataclass(frozen=True)
class Change:
    """What the `change` command carries: the signed texts of a card (empty: none) and of the head that counts it."""

    card: str
    head: str


@dataclass(frozen=True)
class Place:
    """A device's card in the roster, verified: its text and itself (None: it has none), and the proof."""

    name: str
    text: str
    card: Card | None
    proof: Proof


def place_of(reply: RosterReply, roster: Roster, anchor: Anchor, name: str) -> Place:
    """Where a device's card stands, as the reply to `show` proves it. Raises `Refused`, mostly `roster`."""
    if reply.place is None:
        raise Refused("roster", f"the aggregator does not prove what the roster has of {name!r}")
    card = read_card(reply.card, anchor) if reply.card else None
    if card is not None and card.member != name:
        raise Refused("roster", f"asked for {name!r}, the card is of {card.member!r}")
    found = hash_of_card(reply.card) if reply.card else None
    if merkle.root_with(reply.place, name, found) != roster.head.tree:
        raise Refused("roster", f"what the aggregator shows of {name!r} is not what version {roster.version} counts")
    return Place(name, reply.card, card, reply.place)


def number(federation: str, member: Member) -> str:
    """The six digits of a request, to be compared with those that the device shows."""
    return number_of(federation, member.name, member.keys, member.nonce, member.challenge)


def check_rotation(member: Member, place: Place, federation: str) -> None:
    """That a device's approved key wants its new ones. Raises `Refused`: `not-enrolled`, `signature`."""
    if place.card is None or place.card.state != "approved":
        raise Refused("not-enrolled", f"{place.name!r} is not approved, so it has no keys to change: invite it anew")
    check_endorsed(member.endorsement, place.card.keys.signing, federation, place.name, member.keys)


def approve(roster: Roster, operator: Identity, place: Place, keys: Keys, now: int) -> Change:
    """Let a device in with these keys, in the place of those that it had. `now`: seconds since 1970.

    Raises `Refused("roster")` for a name that another role has, or that no device may have.
    """
    _check_free(roster, place.name)
    if fault := fault_of(place.name, certificate=bool(keys.tls)):
        raise Refused("roster", f"{place.name!r}: {fault}; the device must join under another --id")
    return _change(roster, operator, place, "approved", keys, now)


def revoke(roster: Roster, operator: Identity, place: Place, now: int) -> Change:
    """Turn a device out; models have another group key from then on. Raises `Refused("not-enrolled")`."""
    if place.card is None:
        raise Refused("not-enrolled", f"the roster, version {roster.version}, has no {place.name!r}")
    return _change(roster, operator, place, "revoked", place.card.keys, now)


def next_head(
    roster: Roster, operator: Identity, now: int, *, delegation: str = "", aggregators: tuple[Aggregator, ...] = (),
    ca: str = "",
) -> Change:  # fmt: skip
    """A head with the same cards: with another delegation, aggregators, or authority, where they are given."""
    head = roster.head
    return Change(
        "",
        _signed_head(
            roster, operator, now, head.tree, head.count, head.group, delegation or head.delegation,
            aggregators or head.aggregators, ca or head.ca,
        ),
    )  # fmt: skip


def with_next_epoch(roster: Roster, lineage: str) -> tuple[Aggregator, ...]:
    """The head's aggregators, the epoch of one of them one higher. Raises `Refused("not-enrolled")`."""
    roster.aggregator(lineage)
    return tuple(
        msgspec.structs.replace(found, epoch=found.epoch + 1) if found.lineage == lineage else found
        for found in roster.head.aggregators
    )


def with_new_keys(roster: Roster, lineage: str, offered: Member) -> tuple[Aggregator, ...]:
    """The head's aggregators, one of them with the keys that it offers. Raises `Refused`, as for a rotation."""
    before = roster.aggregator(lineage)
    if offered.name != lineage:
        raise Refused("not-for-us", f"keys of {offered.name!r}")
    check_endorsed(offered.endorsement, before.signing, roster.head.federation, lineage, offered.keys)
    after = msgspec.structs.replace(before, signing=offered.keys.signing, sealing=offered.keys.sealing)
    return tuple(after if found.lineage == lineage else found for found in roster.head.aggregators)


def first_head(
    anchor: Anchor, operator: Identity, aggregator: Aggregator, delegation: str, now: int, ca: str = ""
) -> str:
    """Version 1 of a roster: no device yet. `ca`: who signs the broker's certificate, in PEM."""
    head = Head(
        federation=anchor.federation, sender=operator.name, key=operator.key, proof="", seq=1, issued=now,
        tree=EMPTY_TREE, count=0, group=1, aggregators=(aggregator,), ca=ca, delegation=delegation,
    )  # fmt: skip
    return operator.sign(head).decode()


def delegate(anchor: Anchor, root: Identity, operators: Sequence[Operator], serial: int, until: int) -> str:
    """The root's word for these operators, until then. `root` signs as the anchor says, whatever its file is called."""
    signed = Delegation(
        federation=anchor.federation, sender=ROOT, key=root.key, proof="", seq=serial, operators=tuple(operators),
        until=until,
    )  # fmt: skip
    return root.sign(signed).decode()


def _change(
    roster: Roster, operator: Identity, place: Place, state: Literal["approved", "revoked"], keys: Keys, now: int
) -> Change:
    before, version = place.card, roster.version + 1
    card = Card(
        federation=roster.head.federation, sender=operator.name, key=operator.key, proof="", seq=version,
        member=place.name, state=state, keys=keys,
    )  # fmt: skip
    text = operator.sign(card).decode()
    tree = merkle.root_with(place.proof, place.name, hash_of_card(text))
    # Who could read models until now, with a key that counts no longer, must not read the next.
    shut_out = state == "revoked" or (before is not None and before.state == "approved" and before.keys != keys)
    group = version if shut_out else roster.head.group
    count = roster.head.count + (before is None)
    head = roster.head
    return Change(
        text, _signed_head(roster, operator, now, tree, count, group, head.delegation, head.aggregators, head.ca)
    )


def _signed_head(
    roster: Roster, operator: Identity, now: int, tree: str, count: int, group: int, delegation: str,
    aggregators: tuple[Aggregator, ...], ca: str,
) -> str:  # fmt: skip
    head = msgspec.structs.replace(
        roster.head, sender=operator.name, key=operator.key, proof="", seq=roster.version + 1,
        issued=max(now, roster.head.issued), tree=tree, count=count, group=group, delegation=delegation,
        aggregators=aggregators, ca=ca,
    )  # fmt: skip
    return operator.sign(head).decode()


def _check_free(roster: Roster, name: str) -> None:
    taken = {found.lineage: "an aggregator's lineage" for found in roster.head.aggregators}
    taken |= {operator: "an operator" for operator, _ in roster.operators()}
    if name in taken:
        raise Refused("roster", f"{name!r} is the name of {taken[name]}: the device must join under another --id")
