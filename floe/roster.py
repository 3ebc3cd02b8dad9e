"""The roster: what of it may be believed, from the root's key to an aggregator's, and what follows what. Pure.

Root key -> `Delegation` -> `Head` -> an aggregator's keys and the hash of every card. Nobody here looks at a clock: a
device's is wrong. A head must be issued before its delegation ended, and versions, serials and times never go back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from floe.documents import ROOT, Aggregator, Card, Delegation, Head, Join, JoinRequest, Keys
from floe.errors import Refused
from floe.hpke import open_with, seal_to
from floe.messages import Message, canonical, parse_json
from floe.signing import from_text, to_text, verify, verify_bytes

DIGITS = 6
D = TypeVar("D", bound=Message)


@dataclass(frozen=True)
class Anchor:
    """What a member knows of its federation before anything is said: its name and the root's public key."""

    federation: str
    root: str


@dataclass(frozen=True)
class Roster:
    """A head that leads to the root: as it was signed, and read."""

    text: str
    head: Head
    delegation: Delegation

    @property
    def version(self) -> int:
        return self.head.seq

    def aggregator(self, lineage: str) -> Aggregator:
        """The keys of a lineage's aggregator. Raises `Refused("not-enrolled")`."""
        for found in self.head.aggregators:
            if found.lineage == lineage:
                return found
        raise Refused("not-enrolled", f"the roster, version {self.version}, has no aggregator {lineage!r}")

    def operators(self) -> tuple[tuple[str, str], ...]:
        """Names and public keys of those who may sign, and steer rounds."""
        return tuple((operator.name, operator.key) for operator in self.delegation.operators)


def read_delegation(text: str, anchor: Anchor) -> Delegation:
    """A delegation by the root. Raises `Refused`: `malformed`, `signature`, `not-for-us`, `unknown-key`."""
    delegation = _document(text, Delegation, anchor)
    if (delegation.sender, delegation.key) != (ROOT, anchor.root):
        raise Refused("unknown-key", "the delegation is not signed by the root of this federation")
    return delegation


def read_head(text: str, anchor: Anchor) -> Roster:
    """A head that leads to the root. Raises `Refused`: as `read_delegation`, and `roster`."""
    head = _document(text, Head, anchor)
    delegation = read_delegation(head.delegation, anchor)
    roster = Roster(text, head, delegation)
    if (head.sender, head.key) not in roster.operators():
        raise Refused("unknown-key", f"{head.sender!r} with this key is no operator of delegation {delegation.seq}")
    if head.issued > delegation.until:
        raise Refused("roster", f"issued at {head.issued}, when delegation {delegation.seq} had ended")
    if head.group > head.seq or len({found.lineage for found in head.aggregators}) != len(head.aggregators):
        raise Refused("malformed", "head: a group key of a later version, or a lineage twice")
    return roster


def check_follows(roster: Roster, before: Roster) -> None:
    """That a roster may take the place of the one before, or is it again. Raises `Refused("roster")`."""
    new, old = roster.head, before.head
    if new.seq == old.seq and roster.text != before.text:
        raise Refused("roster", f"another version {new.seq} than the one that was seen before")
    epochs = {found.lineage: found.epoch for found in old.aggregators}
    back = [
        name
        for name, now, then in (
            ("version", new.seq, old.seq),
            ("serial of the delegation", roster.delegation.seq, before.delegation.seq),
            ("time", new.issued, old.issued),
            ("group key", new.group, old.group),
            *((f"epoch of {a.lineage}", a.epoch, epochs.get(a.lineage, 0)) for a in new.aggregators),
        )
        if now < then
    ]
    if back:
        raise Refused("roster", f"version {new.seq} goes back behind version {old.seq}: {', '.join(back)}")


def read_card(text: str, anchor: Anchor) -> Card:
    """A card, signed by whom it says: whether it counts, the head's tree says. Raises `Refused`."""
    return _document(text, Card, anchor)


def hash_of_card(text: str) -> bytes:
    """What stands for a card in the head's tree: SHA-256 of its exact text."""
    return hashlib.sha256(text.encode()).digest()


def short_hash_of_card(text: str) -> str:
    """What an order to rotate names a card by: 32 hexadecimal digits of its hash."""
    return hash_of_card(text).hex()[:32]


def number(request: JoinRequest, join: Join, challenge: str) -> str:
    """Six digits that device and operator compare; the challenge was chosen after the keys were known."""
    return number_of(request.federation, request.sender, join.keys, join.nonce, challenge)


def number_of(federation: str, device: str, keys: Keys, nonce: str, challenge: str) -> str:
    """As `number`, from its parts."""
    lines = ("floe-v1 number", federation, device, keys.signing, keys.sealing, nonce, challenge)
    digest = hashlib.sha256("\n".join(lines).encode()).digest()
    return f"{int.from_bytes(digest) % 10**DIGITS:0{DIGITS}}"


def seal_join(join: Join, federation: str, lineage: str, device: str, recipient: str) -> str:
    """A request's content (`JoinRequest.sealed`), for the aggregator with this sealing key alone."""
    info = _join_info(federation, lineage, device, join.keys.signing)
    return to_text(seal_to(recipient, msgspec.json.encode(join), info))


def open_join(request: JoinRequest, private: X25519PrivateKey) -> Join:
    """The inverse of `seal_join`. Raises `Refused`: `unsealing`, `malformed`, `unknown-key`."""
    info = _join_info(request.federation, request.to, request.sender, request.key)
    plain = open_with(private, from_text(request.sealed), info)
    try:
        join = msgspec.convert(parse_json(plain), Join)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Refused("malformed", f"join: {error}") from None
    if join.keys.signing != request.key:
        raise Refused("unknown-key", "the request is signed by another key than it asks for")
    return join


def endorsement_bytes(federation: str, device: str, keys: Keys) -> bytes:
    """What a device's old key signs when it is to have other keys."""
    return f"floe-v1 rotation\n{federation}\n{device}\n".encode() + canonical(msgspec.to_builtins(keys))


def check_endorsed(endorsement: str, old_key: str, federation: str, device: str, keys: Keys) -> None:
    """That a device's old key wants these new ones. Raises `Refused("signature")`."""
    verify_bytes(endorsement, old_key, endorsement_bytes(federation, device, keys))


def group_info(federation: str, lineage: str, device: str, group: int) -> bytes:
    """What a sealed group key belongs to."""
    return f"floe-v1 group\n{federation}\n{lineage}\n{device}\n{group}".encode()


def _join_info(federation: str, lineage: str, device: str, key: str) -> bytes:
    return f"floe-v1 join\n{federation}\n{lineage}\n{device}\n{key}".encode()


def _document(text: str, kind: type[D], anchor: Anchor) -> D:
    document = verify(text.encode(errors="replace"), kind)
    if document.federation != anchor.federation:
        raise Refused("not-for-us", f"federation {document.federation!r}, this is {anchor.federation!r}")
    return document
