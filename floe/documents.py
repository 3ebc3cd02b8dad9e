"""The documents and messages of enrolment: what root and operators sign, and how a device asks to join.

Each is a `Message`, signed and verified like any other; documents are passed on as the exact text that was signed. What
they mean together is in `floe.roster` (`PROTOCOL.md`, "Enrolment").
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from floe.messages import Count, Hash, Message, Name, Sequence, Suite, Text64, TransferId

ROOT = "root"
MAX_AGGREGATORS = 64
PAGE = 30  # members in one reply: with RSA keys some 60 kB

Sealing = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]  # an X25519 public key, or 32 random bytes
Sealed = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,8192}\Z")]
Version = Annotated[int, Meta(ge=0, le=2**31)]
Moment = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # seconds since 1970-01-01T00:00:00Z
Document = Annotated[str, Meta(max_length=65536)]  # a signed document as it was signed; empty: none
Certificates = Annotated[str, Meta(max_length=16384)]  # X.509 in PEM (RFC 7468); empty: none
PasswordHash = Annotated[str, Meta(max_length=256)]  # as Mosquitto's password file has it; empty: none
Detail = Annotated[str, Meta(max_length=500)]
Suites = Annotated[tuple[Suite, ...], Meta(min_length=1, max_length=4)]


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who may sign cards and heads, and steer rounds."""

    name: Name
    key: Text64


class Delegation(Message, frozen=True, tag="delegation", kw_only=True):
    """The root names the operators, for a time. `seq` is its serial: the highest counts, all others are void."""

    operators: Annotated[tuple[Operator, ...], Meta(min_length=1, max_length=64)]
    until: Moment


class Aggregator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An aggregator as the head names it: its keys, and the epoch of its chain below which nothing counts."""

    lineage: Name
    signing: Text64
    sealing: Sealing
    epoch: Annotated[int, Meta(ge=1, le=2**31)]


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device has made for itself: public keys, what it can open quickly, how it logs in at the broker."""

    signing: Text64
    sealing: Sealing
    suites: Suites
    login: PasswordHash = ""
    tls: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,512}\Z")] = ""


class Card(Message, frozen=True, tag="card", kw_only=True):
    """A device's entry in the roster, signed by an operator. `seq` is the version of the roster that it made."""

    member: Name
    state: Literal["approved", "revoked"]
    keys: Keys


class Head(Message, frozen=True, tag="head", kw_only=True):
    """The roster in one message, signed by an operator; `seq` is its version, which only grows. Retained.

    `tree` is the root of the map of cards (`floe.merkle`), `group` the version since which the group key is another.
    """

    issued: Moment
    tree: Hash
    count: Count
    group: Version
    aggregators: Annotated[tuple[Aggregator, ...], Meta(min_length=1, max_length=MAX_AGGREGATORS)]
    ca: Certificates = ""
    delegation: Document


class Entry(Message, frozen=True, tag="entry", kw_only=True):
    """An aggregator to one device: its card, and the group key of models sealed to it. Retained.

    `rotate`: an operator wants other keys; the device makes them and asks with an endorsement by the old one.
    """

    to: Name
    card: Document
    group: Version
    group_key: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,512}\Z")]
    certificate: Certificates = ""
    rotate: bool = False


class JoinRequest(Message, frozen=True, tag="join", kw_only=True):
    """A device asks to be let in, or for other keys: signed by its new key, `sealed` (a `Join`) to the aggregator."""

    to: Name
    sealed: Sealed


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request holds. `token`: of the invitation; `endorsement`: the old key's signature, for a rotation."""

    nonce: TransferId
    keys: Keys
    token: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    endorsement: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,512}\Z")] = ""


class JoinReply(Message, frozen=True, tag="joined", kw_only=True):
    """The aggregator's answer to a request: `nonce` is the request's, which shows that this is fresh."""

    to: Name
    to_key: Text64
    nonce: TransferId
    challenge: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")]
    state: Literal["pending", "approved", "rejected", "refused"]
    version: Version
    detail: Detail = ""


class Sibling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The other leaf at the place where a name's would be: SHA-256 of its name and of its card."""

    name: Hash
    card: Hash


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What leads from a name to the root of the map: the hashes beside its path, from the root down."""

    path: Annotated[tuple[Hash, ...], Meta(max_length=256)] = ()
    other: Sibling | None = None


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device as operators see it. `challenge` and `nonce` belong to a request that is pending."""

    name: Name
    state: Literal["pending", "rotating", "rejected", "approved", "revoked"]
    keys: Keys
    time: Moment
    version: Version = 0
    nonce: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    challenge: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    endorsement: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,512}\Z")] = ""


class RosterCommand(Message, frozen=True, tag="manage", kw_only=True):
    """An operator asks about the roster, or changes it. What each action needs is in `PROTOCOL.md`."""

    to: Name
    action: Literal["list", "show", "invite", "change", "reject", "rotate"]
    name: Annotated[str, Meta(pattern=r"\A([a-z0-9_-]{1,64})?\Z")] = ""
    token: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""
    until: Moment = 0
    request: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    card: Document = ""
    head: Document = ""


class RosterReply(Message, frozen=True, tag="managed", kw_only=True):
    """The answer to the roster command with sequence number `command`: the roster's head, and who was asked for."""

    to: Name
    to_key: Text64
    command: Sequence
    done: bool
    detail: Detail
    head: Document
    members: Annotated[tuple[Member, ...], Meta(max_length=PAGE)] = ()
    card: Document = ""
    place: Proof | None = None
    more: bool = False
