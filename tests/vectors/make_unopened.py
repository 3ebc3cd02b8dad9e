"""What is sealed or endorsed and must not open, each with its reason: one function for one file in invalid/."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import hpke9180
from enrolled import (
    ASKS,
    KEYS,
    NEWEST,
    entry,
    request,
    sealing,
    signed_text,
    text_of,
    transfers,
)
from make_enrolled import change_of, hexed
from material import ANN, EVE, MAIN, Json, fixed, flipped, raw_signed, respelled

from floe import documents as d
from floe.identity import Identity
from floe.roster import endorsement_bytes, group_info
from floe.signing import from_text, to_text


def hpke() -> list[Json]:
    main, plaintext, info = sealing("main"), fixed("plaintext"), b"floe-v1 something\nann"
    sealed = hpke9180.seal(main.public_key().public_bytes_raw(), plaintext, info, sealing("nobody: 32 bytes"))
    right: Json = {"private": hexed(main), "info": info.hex(), "sealed": sealed.hex()}

    def turned(place: int) -> str:
        return (sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]).hex()

    cases: list[tuple[str, Json]] = [
        ("another reader", {"private": hexed(sealing("ann"))}),
        ("another info", {"info": (info + b"a").hex()}),
        ("no info", {"info": ""}),
        ("a bit of the encapsulated key", {"sealed": turned(0)}),
        ("a bit of the ciphertext", {"sealed": turned(32)}),
        ("a bit of the tag", {"sealed": turned(len(sealed) - 1)}),
        ("a byte behind it", {"sealed": sealed.hex() + "00"}),
        ("a byte too few", {"sealed": sealed[:-1].hex()}),
        ("the encapsulated key alone", {"sealed": sealed[:32].hex()}),
        ("31 bytes", {"sealed": sealed[:31].hex()}),
        ("nothing", {"sealed": ""}),
        ("a point of order 1", {"sealed": (bytes(32) + sealed[32:]).hex()}),
    ]
    return [{"name": name, **right, **change, "reason": "unsealing"} for name, change in cases]


def joins() -> list[Json]:
    right, eve = request("ann"), replace(EVE, name="ann")
    sealed = json.loads(right)["sealed"]
    info = f"floe-v1 join\nfloe\nmain\nann\n{ANN.key}".encode()

    def put(who: Identity = ANN, **fields: Any) -> str:
        return raw_signed(change_of(right, **fields).encode(), who).decode()

    def holding(content: str) -> str:
        recipient = sealing("main").public_key().public_bytes_raw()
        return put(sealed=to_text(hpke9180.seal(recipient, content.encode(), info, sealing("nobody: invalid"))))

    join = text_of(ASKS["ann"][1])
    cases = [
        ("taken by another key", put(eve, key=EVE.key), "unsealing"),
        ("signed by another key", put(eve), "signature"),
        ("asks for another's key", holding(json.dumps(join | {"keys": text_of(KEYS["ann2"])})), "unknown-key"),
        ("sealed for another lineage", request("ann", lineage="mine"), "unsealing"),
        ("sent to another lineage", request("ann", to="mine"), "unsealing"),
        ("sealed for another federation", request("ann", federation="other"), "unsealing"),
        ("sealed for another device", request("ann", device="amn"), "unsealing"),
        ("taken by another name", put(sender="amn"), "unsealing"),
        ("first bit of the seal", put(sealed=flipped(sealed[:1].encode()).decode() + sealed[1:]), "unsealing"),
        ("cut", put(sealed=sealed[:64]), "unsealing"),
        ("in another spelling", put(sealed=sealed[:-1] + respelled(sealed[-1:].encode()).decode()), "malformed"),
        ("not JSON", holding("{"), "malformed"),
        ("a list", holding("[]"), "malformed"),
        ("a member twice", holding('{"nonce":"' + "0" * 32 + '",' + json.dumps(join)[1:]), "malformed"),
        ("a member too many", holding(json.dumps(join | {"state": "approved"})), "malformed"),
        ("no nonce", holding(json.dumps({"keys": join["keys"]})), "malformed"),
        ("token of 17 bytes", holding(json.dumps(join | {"token": "0" * 34})), "malformed"),
    ]
    found = [
        {"name": name, "payload": text, "aggregator": hexed(sealing("main")), "reason": reason}
        for name, text, reason in cases
    ]
    return [*found, found[0] | {"name": "sealed to another", "payload": right, "aggregator": hexed(sealing("ann"))}]


def endorsements() -> list[Json]:
    keys = text_of(KEYS["ann2"])
    right: Json = {"federation": "floe", "device": "ann", "keys": keys, "old_key": ANN.key}
    mine = ASKS["ann2"][1].endorsement
    own = to_text(ASKS["ann2"][0].private.sign(endorsement_bytes("floe", "ann", KEYS["ann2"])))
    without = b"\n".join(endorsement_bytes("floe", "ann", KEYS["ann2"]).split(b"\n")[1:])
    cases: list[tuple[str, Json, str]] = [
        ("by the new key", {"endorsement": own}, "signature"),
        ("of another federation", {"federation": "other"}, "signature"),
        ("of another device", {"device": "bob"}, "signature"),
        ("another signing key", {"keys": keys | {"signing": EVE.key}}, "signature"),
        ("another sealing key", {"keys": keys | {"sealing": text_of(KEYS["ann"])["sealing"]}}, "signature"),
        ("other suites", {"keys": keys | {"suites": ["plaintext"]}}, "signature"),
        ("another password", {"keys": keys | {"login": "$7$"}}, "signature"),
        ("another key for TLS", {"keys": keys | {"tls": "AAAA"}}, "signature"),
        ("under another key", {"old_key": EVE.key}, "signature"),
        ("without its first line", {"endorsement": to_text(ANN.private.sign(without))}, "signature"),
        ("first bit", {"endorsement": flipped(mine[:1].encode()).decode() + mine[1:]}, "signature"),
        ("in another spelling", {"endorsement": mine[:-1] + respelled(mine[-1:].encode()).decode()}, "malformed"),
    ]
    return [{"name": name, **right, "endorsement": mine, **case, "reason": reason} for name, case, reason in cases]


def entries() -> list[Json]:
    owner, seq = sealing("ann's second"), 2**32 + 20
    right = entry("ann", NEWEST.cards["ann"], owner, seq)
    cases = [
        (what, entry("ann", NEWEST.cards["ann"], owner, seq, info=info))
        for what, info in (
            ("of another federation", group_info("other", "main", "ann", 6)),
            ("of another lineage", group_info("floe", "mine", "ann", 6)),
            ("of another device", group_info("floe", "main", "bob", 6)),
            ("of another version", group_info("floe", "main", "ann", 5)),
        )
    ]
    key = json.loads(right)["group_key"]
    turned = change_of(right, group_key=to_text(from_text(key)[:-1] + bytes([from_text(key)[-1] ^ 1])))
    card = NEWEST.cards["ann"]
    cases += [("sealed to another", entry("ann", card, sealing("ann"), seq)),
              ("sealed for another version", signed_text(MAIN, d.Entry, seq, to="ann", card=card, group=7,
                                                         group_key=key)),
              ("last bit", raw_signed(turned.encode(), MAIN).decode())]  # fmt: skip
    return [{"name": name, "payload": text, "private": hexed(owner), "reason": "unsealing"} for name, text in cases]


def changed_transfers() -> list[Json]:
    """As in invalid/transfers: an envelope of enrolment changed in one place, or read by who must not."""
    found = []
    for valid in transfers():
        envelope, wrap = valid["envelope"], valid["envelope"]["wrap"]
        key, secret = envelope["key"], valid["secret"]
        last = key[-2:-1].encode()
        cases: list[tuple[str, Json, str]] = [
            ("first bit of the key", {"envelope": {"key": flipped(key[:1].encode()).decode() + key[1:]}}, "unsealing"),
            ("last byte of the key", {"envelope": {"key": key[:-2] + flipped(last).decode() + key[-1:]}}, "unsealing"),
            ("key cut", {"envelope": {"key": to_text(from_text(key)[:-3])}}, "unsealing"),
            ("no key", {"envelope": {"key": ""}}, "unsealing"),
            ("another recipient", {"envelope": {"to": "mine"}}, "unsealing"),
            ("another wrap", {"envelope": {"wrap": "group" if wrap == "hpke" else "hpke"}}, "suite"),
            ("wrap of a shared secret", {"envelope": {"wrap": "shared"}}, "suite"),
            ("no wrap", {"envelope": {"wrap": "none", "key": ""}}, "suite"),
            ("suite of a shared secret", {"core": {"suite": "fernet"}}, "suite"),
            ("in plaintext", {"core": {"suite": "plaintext"}, "envelope": {"wrap": "none", "key": ""}}, "suite"),
            ("another core", {"core": {"round": 7}}, "unsealing"),
            ("a secret more, or less", {"secret": "" if secret else fixed("secret").hex()}, "unsealing"),
            ("another secret", {"secret": fixed("another secret").hex()}, "unsealing"),
        ]
        if wrap == "hpke":
            cases.append(("another's key", {"private": hexed(sealing("eve"))}, "unsealing"))
        else:
            cases.append(("another group key", {"group_key": fixed("another group key").hex()}, "unsealing"))
            cases.append(("an older group key", {"group": 7}, "roster"))
            cases.append(("a later group key", {"envelope": {"group": 7}}, "roster"))
        for name, change, reason in cases:
            whole = {part: valid[part] | new if isinstance(new, dict) else new for part, new in change.items()}
            found.append(
                {"name": f"{valid['name']}: {name}", "of": valid["name"], "step": "key", "reason": reason} | whole
            )
    return found
