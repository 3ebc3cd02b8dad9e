"""The valid examples of enrolment: each function returns the content of one file in valid/."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import hpke9180
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from enrolled import AGGREGATOR, ASKS, GROUP_KEY, NEWEST, ROOT, T0, documents, entry, grown, request, sealing, text_of
from material import ANN, Json, fixed, private_bytes

from floe import merkle
from floe.joincode import JoinCode, write_code
from floe.roster import number_of


def hexed(key: X25519PrivateKey) -> str:
    return key.private_bytes_raw().hex()


def hpke() -> list[Json]:
    cases = [
        ("32 bytes", fixed("plaintext"), b"floe-v1 something\nann"),
        ("no info", b"hello", b""),
        ("empty", b"", b"x"),
    ]
    return [
        {"name": name, "private": hexed(sealing("main")), "info": info.hex(), "plaintext": plaintext.hex(),
         "sealed": hpke9180.seal(sealing("main").public_key().public_bytes_raw(), plaintext, info,
                                 sealing(f"nobody: {name}")).hex()}
        for name, plaintext, info in cases
    ]  # fmt: skip


def messages() -> list[Json]:
    return [{"name": name, "type": name.split("-")[0], "payload": text} for name, text in documents().items()]


def rosters() -> list[Json]:
    """All versions; with each the card that it brought, and what the tree then says of that device."""
    versions = []
    for after in grown():
        device, card = after.brought[-1]
        place = text_of(merkle.prove(after.hashes(), device)) if device else None
        versions.append({"head": after.heads[-1], "device": device, "card": card, "place": place})
    return [{"name": "seven versions", "federation": "floe", "root": ROOT.key, "lineage": "main", "versions": versions}]


def trees() -> list[Json]:
    fleets = {
        "no card": [],
        "one card": ["ann"],
        "three cards": ["ann", "bob", "cy"],
        "two hundred cards": [f"device-{i}" for i in range(200)],
    }
    found = []
    for name, fleet in fleets.items():
        cards = {device: f"card of {device}" for device in fleet}
        hashes = {device: hashlib.sha256(text.encode()).digest() for device, text in cards.items()}
        proofs = [
            {"device": device, "card": cards.get(device), "proof": text_of(merkle.prove(hashes, device)),
             "after": merkle.root_of(hashes | {device: hashlib.sha256(b"another card").digest()})}
            for device in [*fleet[:3], "dan", "eve", "nobody"]
        ]  # fmt: skip
        found.append({"name": name, "cards": cards, "root": merkle.root_of(hashes), "proofs": proofs})
    return found


def joins() -> list[Json]:
    found = []
    for label, (who, join) in ASKS.items():
        challenge = fixed(f"challenge of {label}", 16).hex()
        found.append(
            {"name": label, "payload": request(label), "aggregator": hexed(sealing("main")),
             "private": private_bytes(who).hex(), "join": text_of(join), "challenge": challenge,
             "number": number_of("floe", who.name, join.keys, join.nonce, challenge),
             "old_key": ANN.key if join.endorsement else ""}
        )  # fmt: skip
    return found


def entries() -> list[Json]:
    owners = {"ann": sealing("ann's second"), "rob": sealing("rob")}
    return [
        {"name": device, "payload": entry(device, NEWEST.cards[device], owner, 2**32 + 20), "private": hexed(owner),
         "group_key": GROUP_KEY.hex()}
        for device, owner in owners.items()
    ]  # fmt: skip


def codes() -> list[Json]:
    """Join codes: of an odd and of an even number of bytes."""
    first = JoinCode(
        "floe", "main", "ann", ROOT.key, AGGREGATOR.sealing, fixed("token", 16).hex(), T0 + 86_400, 7, "broker.example",
        8883, 8884, tls=True, login="certificates",
    )  # fmt: skip
    cases = {
        "for ann": first,
        "for any device": replace(first, device="", host="10.0.0.7", port=1883, tls=False, login="shared"),
    }
    cases["for members with passwords"] = replace(first, login="passwords")
    cases["the longest"] = replace(
        first, federation="f" * 64, lineage="-" * 64, device="_" * 64, host="h" * 253, expires=2**32 - 1
    )
    return [{"name": name, "code": asdict(code), "text": write_code(code)} for name, code in cases.items()]


def change_of(text: str, **fields: object) -> str:
    """A document's JSON with other fields, and without its signature."""
    found = json.loads(text)
    del found["sig"]
    return json.dumps(found | fields, separators=(",", ":"))
