"""What enrolment's golden files are made of: a root, two operators, a roster in seven versions. Reads nothing.

HPKE is sealed by `hpke9180` with fixed ephemeral keys in the place of Floe's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import hpke9180
import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from material import (
    ANN,
    GLOBAL,
    MAIN,
    MODEL,
    OPA,
    ROB,
    SECRET,
    TOLD,
    UPDATE,
    UPDATES,
    Json,
    draft,
    fixed,
    identity,
    raw_signature,
    raw_signed,
    sealed,
    transfer_of,
)

from floe import documents as d
from floe import merkle, roster, seal
from floe import messages as m
from floe.hpke import sealing_text
from floe.identity import Identity
from floe.signing import from_text, to_text

T0, DAY = 1_800_000_000, 86_400
ROOT, ANN2 = identity("root"), Identity("ann", identity("ann's second").private)
ROP = Identity("rop", ROB.private)  # an operator with an RSA key
GROUP_KEY = fixed("group key")


def sealing(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(fixed(f"sealing key of {name}"))


@contextmanager
def sealing_fixed(label: str) -> Iterator[None]:
    """Within the block Floe seals with one ephemeral key."""
    ephemeral = sealing(f"nobody: {label}")

    def fixed_seal(recipient: str, plaintext: bytes, info: bytes) -> bytes:
        return hpke9180.seal(from_text(recipient), plaintext, info, ephemeral)

    with patch.object(seal, "seal_to", fixed_seal), patch.object(roster, "seal_to", fixed_seal):
        yield


def keys_of(who: Identity, label: str, *suites: m.Suite) -> d.Keys:
    return d.Keys(signing=who.key, sealing=sealing_text(sealing(label).public_key()), suites=suites)


KEYS = {
    "ann": keys_of(ANN, "ann", "chacha20-poly1305", "aes-256-gcm"),
    "ann2": keys_of(ANN2, "ann's second", "chacha20-poly1305"),
    "rob": msgspec.structs.replace(
        keys_of(ROB, "rob", "aes-256-gcm"), login="$7$101$c2FsdA==$aGFzaA==", tls=to_text(fixed("key for TLS", 91))
    ),
}
AGGREGATOR = d.Aggregator("main", MAIN.key, sealing_text(sealing("main").public_key()), 1)


def signed_text(who: Identity, kind: type[m.Message], seq: int, **fields: Any) -> str:
    header = {"federation": "floe", "sender": who.name, "key": who.key, "proof": "", "seq": seq}
    return raw_signed(m.encode(kind(**(header | fields))), who).decode()


def delegation(serial: int, *operators: Identity, by: Identity = ROOT, **fields: Any) -> str:
    named = tuple(d.Operator(who.name, who.key) for who in operators)
    return signed_text(by, d.Delegation, serial, **({"operators": named, "until": T0 + 365 * DAY} | fields))


DELEGATIONS = [delegation(1, OPA), delegation(2, OPA, ROP, until=T0 + 730 * DAY)]


class Versions:
    """The roster as it grows: heads and cards in their order, and the cards that count."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.brought: list[tuple[str, str]] = []
        self.cards: dict[str, str] = {}
        self._fields: Json = {"group": 1, "aggregators": (AGGREGATOR,), "delegation": DELEGATIONS[0]}
        self.take(OPA)

    def take(self, who: Identity, name: str = "", state: str = "approved", keys: str = "", **fields: Any) -> None:
        """The next version."""
        version = len(self.heads) + 1
        if name:
            self.cards[name] = signed_text(who, d.Card, version, member=name, state=state, keys=KEYS[keys or name])
        self._fields |= fields
        self.heads.append(self.head(who, version))
        self.brought.append((name, self.cards.get(name, "")))

    def head(self, who: Identity, version: int, **fields: Any) -> str:
        own = {"issued": T0 + version * 1000, "tree": merkle.root_of(self.hashes()), "count": len(self.cards)}
        return signed_text(who, d.Head, version, **(self._fields | own | fields))

    def hashes(self) -> dict[str, bytes]:
        return {name: hashlib.sha256(text.encode()).digest() for name, text in self.cards.items()}


def grown() -> Iterator[Versions]:
    """The same roster after each version."""
    found = Versions()
    yield found
    second = msgspec.structs.replace(AGGREGATOR, epoch=2)
    steps: list[tuple[Identity, Json]] = [
        (OPA, {"name": "ann"}),
        (OPA, {"name": "rob"}),
        (OPA, {"delegation": DELEGATIONS[1]}),
        (ROP, {"name": "ann", "keys": "ann2", "group": 5}),
        (OPA, {"name": "rob", "state": "revoked", "group": 6}),
        (ROP, {"aggregators": (second,), "ca": "-----BEGIN CERTIFICATE-----\n"}),
    ]
    for who, step in steps:
        found.take(who, **step)
        yield found


NEWEST = list(grown())[-1]


def join(who: Identity, keys: str, **fields: str) -> d.Join:
    return d.Join(nonce=fixed(f"nonce of {keys}", 16).hex(), keys=KEYS[keys], **fields)


ASKS = {
    "ann": (ANN, join(ANN, "ann", token=fixed("token", 16).hex())),
    "rob": (ROB, join(ROB, "rob", token=fixed("token of rob", 16).hex())),
    "ann2": (
        ANN2,
        join(
            ANN2, "ann2",
            endorsement=to_text(raw_signature(roster.endorsement_bytes("floe", "ann", KEYS["ann2"]), ANN)),
        ),
    ),
}  # fmt: skip


def request(label: str, federation: str = "floe", lineage: str = "main", device: str = "", to: str = "main") -> str:
    """A JoinRequest; other names than its own are those that it is wrongly sealed for."""
    who, asked = ASKS[label]
    with sealing_fixed(f"join {label}"):
        sealed_join = roster.seal_join(asked, federation, lineage, device or who.name, AGGREGATOR.sealing)
    return signed_text(who, d.JoinRequest, 2**32 + 1, to=to, sealed=sealed_join)


def entry(device: str, card: str, sealed_to: X25519PrivateKey, seq: int, info: bytes = b"", **fields: Any) -> str:
    group = fields.get("group", 6)
    info = info or roster.group_info("floe", "main", device, group)
    recipient = sealed_to.public_key().public_bytes_raw()
    group_key = to_text(hpke9180.seal(recipient, GROUP_KEY, info, sealing(f"nobody: entry {device}")))
    own = {"to": device, "card": card, "group": group, "group_key": group_key}
    return signed_text(MAIN, d.Entry, seq, **(own | fields))


def documents() -> dict[str, str]:
    """One of each document and message of enrolment, and more."""
    session, heads = 2**32, NEWEST.heads
    first = list(NEWEST.brought)
    before = {name: roster.hash_of_card(card) for name, card in first[1:3]}
    asked = ASKS["ann2"][1]
    rows = (
        d.Member("ann", "rotating", KEYS["ann2"], T0 + 4500, nonce=asked.nonce, challenge=fixed("challenge", 16).hex(),
                 endorsement=asked.endorsement),
        d.Member("ann", "approved", KEYS["ann"], 0, version=2),
    )  # fmt: skip
    reply = {"to": "opa", "to_key": OPA.key, "command": session + 1, "done": True, "detail": "", "head": heads[3]}
    said = {"to": "ann", "to_key": ANN.key, "nonce": ASKS["ann"][1].nonce, "version": 1}
    return {
        "delegation": DELEGATIONS[0],
        "delegation-rsa": DELEGATIONS[1],
        "card": first[1][1],
        "card-rsa": first[4][1],
        "card-revoked": first[5][1],
        "head": heads[1],
        "head-rsa": heads[6],
        "entry": entry("ann", NEWEST.cards["ann"], sealing("ann's second"), session + 9),
        "entry-revoked": signed_text(MAIN, d.Entry, session + 10, to="rob", card=NEWEST.cards["rob"], group=6,
                                     group_key=""),
        "join": request("ann"),
        "join-rsa": request("rob"),
        "joined": signed_text(MAIN, d.JoinReply, session + 11, challenge=fixed("challenge", 16).hex(), state="pending",
                              **said),
        "joined-refused": signed_text(MAIN, d.JoinReply, session + 12, challenge="", state="refused",
                                      detail="this invitation has expired", **said),
        "manage-list": signed_text(OPA, d.RosterCommand, session + 1, to="main", action="list"),
        "manage-invite": signed_text(OPA, d.RosterCommand, session + 2, to="main", action="invite", name="ann",
                                     token=hashlib.sha256(fixed("token", 16)).hexdigest(), until=T0 + DAY),
        "manage-change": signed_text(ROP, d.RosterCommand, session + 3, to="main", action="change",
                                     card=first[4][1], head=heads[4]),
        "manage-reject": signed_text(OPA, d.RosterCommand, session + 4, to="main", action="reject", name="ann",
                                     request=asked.nonce),
        "managed-list": signed_text(MAIN, d.RosterReply, session + 13, members=rows[:1], more=True, **reply),
        "managed-show": signed_text(MAIN, d.RosterReply, session + 14, members=rows, card=first[1][1],
                                    place=merkle.prove(before, "ann"), **reply),
    }  # fmt: skip


def transfers() -> list[Json]:
    """Transfers whose content key is sealed to the aggregator, or under the group key."""
    core, chunks, _, derived = TOLD
    name, keys = "telemetry, hpke", {"secret": "", "private": sealing("main").private_bytes_raw().hex()}
    with sealing_fixed(name):
        content, fresh = bytes.fromhex(derived["content_key"]), fixed(f"fresh {name}")
        wrapped = seal.wrap_hpke(core, content, fresh, b"", AGGREGATOR.sealing, "main")
    found = [transfer_of(name, (core, chunks, wrapped, derived), b"") | keys]
    for suite in ("chacha20-poly1305", "aes-256-gcm"):
        for secret in (b"", SECRET):
            mixed = ", secret mixed in" if secret else ""
            core, chunks, _, derived = UPDATES[suite]
            content, name = bytes.fromhex(derived["content_key"]), f"update, {suite}, hpke{mixed}"
            with sealing_fixed(name):
                wrapped = seal.wrap_hpke(core, content, fixed(f"fresh {name}"), secret, AGGREGATOR.sealing, "main")
            keys = {"secret": secret.hex(), "private": sealing("main").private_bytes_raw().hex()}
            found.append(transfer_of(name, (core, chunks, wrapped, derived), UPDATE) | keys)
            made = GLOBAL if suite == GLOBAL[0].suite else sealed(draft(suite, "model", "main"), MODEL, "{}")
            core, chunks, _, derived = made
            content = bytes.fromhex(derived["content_key"])
            wrapped = seal.wrap_group(core, content, secret, GROUP_KEY, 6, "*")
            keys |= {"private": sealing("ann").private_bytes_raw().hex(), "group_key": GROUP_KEY.hex(), "group": 6}
            found.append(transfer_of(f"model, {suite}, group{mixed}", (core, chunks, wrapped, derived), MODEL) | keys)
    return found


def text_of(struct: msgspec.Struct) -> Json:
    return json.loads(msgspec.json.encode(struct))
