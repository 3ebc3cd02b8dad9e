"""The invalid examples of enrolment, each with its reason: one function for one file in invalid/."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import msgspec
from enrolled import (
    AGGREGATOR,
    DELEGATIONS,
    KEYS,
    NEWEST,
    ROOT,
    ROP,
    T0,
    delegation,
    documents,
    text_of,
)
from make_enrolled import change_of
from make_enrolled import codes as valid_codes
from material import ANN, EVE, MAIN, OPA, Json, raw_signed

from floe import merkle, roster
from floe.identity import Identity

BASE41 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ+-./:"
YEAR = 365 * 86_400


def messages() -> list[Json]:
    good = documents()
    keys = json.loads(msgspec.json.encode(KEYS["ann"]))

    def put(kind: str, who: Identity, **fields: Any) -> str:
        return raw_signed(change_of(good[kind], **fields).encode(), who).decode()

    aggregator = text_of(AGGREGATOR)
    cases: list[tuple[str, str, str, str]] = [
        ("nobody is an operator", "delegation", put("delegation", ROOT, operators=[]), "malformed"),
        ("65 operators", "delegation",
         put("delegation", ROOT, operators=[{"name": "opa", "key": OPA.key}] * 65), "malformed"),
        ("until is a fraction", "delegation", put("delegation", ROOT, until=1.5), "malformed"),
        ("until before 1970", "delegation", put("delegation", ROOT, until=-1), "malformed"),
        ("state that is none", "card", put("card", OPA, state="pending"), "malformed"),
        ("member with a slash", "card", put("card", OPA, member="a/b"), "malformed"),
        ("member from right to left", "card", put("card", OPA, member="\u202enna"), "malformed"),
        ("no suite", "card", put("card", OPA, keys=keys | {"suites": []}), "malformed"),
        ("suite that is none", "card", put("card", OPA, keys=keys | {"suites": ["rot13"]}), "malformed"),
        ("sealing key of 42 characters", "card",
         put("card", OPA, keys=keys | {"sealing": keys["sealing"][1:]}), "malformed"),
        ("keys with a member too many", "card", put("card", OPA, keys=keys | {"admin": True}), "malformed"),
        ("no aggregator", "head", put("head", OPA, aggregators=[]), "malformed"),
        ("65 aggregators", "head", put("head", OPA, aggregators=[aggregator] * 65), "malformed"),
        ("epoch 0", "head", put("head", OPA, aggregators=[aggregator | {"epoch": 0}]), "malformed"),
        ("tree of 63 digits", "head", put("head", OPA, tree="0" * 63), "malformed"),
        ("no delegation", "head", put("head", OPA, delegation=None), "malformed"),
        ("delegation as an object", "head", put("head", OPA, delegation=json.loads(DELEGATIONS[0])), "malformed"),
        ("head as a card", "card", good["head"], "malformed"),
        ("group key with padding", "entry", put("entry", MAIN, group_key="AAA="), "malformed"),
        ("rotate as a number", "entry", put("entry", MAIN, rotate=1), "malformed"),
        ("nothing sealed", "join", put("join", ANN, sealed=""), "malformed"),
        ("sealed of 8193 characters", "join", put("join", ANN, sealed="A" * 8193), "malformed"),
        ("nonce of 31 digits", "joined", put("joined", MAIN, nonce="0" * 31), "malformed"),
        ("state of a member, as a reply", "joined", put("joined", MAIN, state="rotating"), "malformed"),
        ("action that is none", "manage", put("manage-list", OPA, action="trust"), "malformed"),
        ("token itself", "manage", put("manage-list", OPA, token="0" * 32), "malformed"),
        ("31 members", "managed",
         put("managed-list", MAIN, members=json.loads(good["managed-list"])["members"] * 31), "malformed"),
        ("path of 257 hashes", "managed", put("managed-show", MAIN, place={"path": ["0" * 64] * 257}), "malformed"),
        ("another's signature", "head", put("head", EVE), "signature"),
        ("RSA: a byte of the content", "head", good["head-rsa"].replace('"count":2', '"count":3'), "signature"),
        ("RSA: another's signature", "card", put("card-rsa", OPA), "signature"),
    ]  # fmt: skip
    return [
        {"name": name, "type": kind, "payload": base64.b64encode(text.encode()).decode(), "reason": reason}
        for name, kind, text, reason in cases
    ]


def rosters() -> list[Json]:
    """A head that must not be believed: by itself, or after the one `before`."""
    last, epoch = NEWEST.heads[-1], (msgspec.structs.replace(AGGREGATOR, epoch=2),)
    cases: list[tuple[str, str, str, str]] = []

    def alone(name: str, reason: str, head: str) -> None:
        cases.append((name, "", head, reason))

    def after(name: str, who: Identity = ROP, version: int = 8, **fields: Any) -> None:
        cases.append((name, last, NEWEST.head(who, version, **fields), "roster"))

    def under(text: str, who: Identity = OPA, **fields: Any) -> str:
        return NEWEST.head(who, 8, delegation=text, **fields)

    alone("by a stranger", "unknown-key", NEWEST.head(EVE, 8))
    alone("by a stranger of an operator's name", "unknown-key", NEWEST.head(replace(EVE, name="opa"), 8))
    alone("by an operator under another's name", "unknown-key", NEWEST.head(replace(ROP, name="opa"), 8))
    alone("by an operator of a later delegation", "unknown-key", under(DELEGATIONS[0], ROP))
    alone("by the aggregator", "unknown-key", NEWEST.head(MAIN, 8))
    alone("by the root itself", "unknown-key", NEWEST.head(ROOT, 8))
    alone("delegation by another root", "unknown-key", under(delegation(3, OPA, by=replace(EVE, name="root"))))
    alone(
        "delegation by the root under another name",
        "unknown-key",
        under(delegation(3, OPA, by=replace(ROOT, name="opa"))),
    )
    alone("delegation by the operator", "unknown-key", under(delegation(3, OPA, by=OPA)))
    alone("delegation of another federation", "not-for-us", under(delegation(3, OPA, federation="other")))
    alone("delegation altered", "signature", under(DELEGATIONS[1].replace('"until":1', '"until":2')))
    alone("delegation without signature", "signature", under(change_of(DELEGATIONS[1])))
    alone("no delegation", "signature", under(""))
    alone("a card for a delegation", "malformed", under(NEWEST.cards["ann"]))
    alone("of another federation", "not-for-us", NEWEST.head(OPA, 8, federation="other"))
    alone("issued after the delegation", "roster", NEWEST.head(OPA, 8, issued=T0 + 2 * YEAR + 1))
    alone("a group key of a later version", "malformed", NEWEST.head(OPA, 8, group=9))
    alone("a lineage twice", "malformed", NEWEST.head(OPA, 8, aggregators=(AGGREGATOR, *epoch)))
    alone(
        "without the lineage",
        "not-enrolled",
        NEWEST.head(OPA, 8, aggregators=(msgspec.structs.replace(AGGREGATOR, lineage="mine"),)),
    )
    alone("a byte altered", "signature", last.replace('"count":2', '"count":1'))
    alone("a card", "malformed", NEWEST.cards["ann"])
    for version, older in enumerate(NEWEST.heads[:-1], 1):
        cases.append((f"version {version} after 7", last, older, "roster"))
    after("version 7, another", version=7, issued=T0 + 7001)
    after("version 6 again, all else newer", version=6, issued=T0 + 8000)
    after("issued before", issued=T0 + 6999)
    after("an older delegation", OPA, delegation=DELEGATIONS[0])
    after("an older group key", group=5)
    after("an older epoch", aggregators=(AGGREGATOR,))
    return [
        {"name": name, "federation": "floe", "root": ROOT.key, "lineage": "main", "before": before, "head": head,
         "reason": reason}
        for name, before, head, reason in cases
    ]  # fmt: skip


def trees() -> list[Json]:
    """A proof that does not give the root, or is none."""
    hashes = {name: roster.hash_of_card(f"card of {name}") for name in ("ann", "bob", "cy")}
    root = merkle.root_of(hashes)
    ann, dan = (text_of(merkle.prove(hashes, name)) for name in ("ann", "dan"))
    path, other = ann["path"], dan["other"]
    cases: list[tuple[str, str, str | None, Json]] = [
        ("another card", "ann", "card of amn", ann),
        ("no card, although there is one", "ann", None, ann),
        ("a card, although there is none", "dan", "card of dan", dan),
        ("another's proof", "bob", "card of bob", ann),
        ("path turned around", "ann", "card of ann", {"path": path[::-1]}),
        ("path cut at the end", "ann", "card of ann", {"path": path[:1]}),
        ("path cut at the root", "ann", "card of ann", {"path": path[1:]}),
        ("path too long", "ann", "card of ann", {"path": [*path, "0" * 64]}),
        ("no path", "ann", "card of ann", {}),
        ("a bit of the path", "ann", "card of ann", {"path": [path[0], path[1][:-1] + "0"]}),
        ("another leaf where there is none", "ann", "card of ann", {"path": path, "other": other}),
        ("no leaf where there is one", "dan", None, {"path": dan["path"]}),
        ("the other leaf's card", "dan", None, {"path": dan["path"], "other": other | {"card": "0" * 64}}),
        ("a leaf that cannot stand there", "ann", None, {"path": dan["path"], "other": other}),
        ("the name's own leaf as the other", "bob", None, {"path": dan["path"], "other": other}),
    ]
    return [
        {"name": name, "root": root, "device": device, "card": card, "proof": proof, "reason": "roster"}
        for name, device, card, proof in cases
    ]


def codes() -> list[Json]:
    """Join codes that must not be taken; most are right but for one thing, checksum included."""
    good = valid_codes()[0]["text"]
    content = read_base41(good.removeprefix("FLOE1:"))[:-4]

    def holding(changed: bytes) -> str:
        return "FLOE1:" + base41(changed + hashlib.sha256(b"FLOE1:" + changed).digest()[:4])

    cases = [
        ("empty", ""),
        ("another version", good.replace("FLOE1", "FLOE2")),
        ("a character changed", good[:-1] + ("0" if good[-1] != "0" else "1")),
        ("a character too few", good[:-1]),
        ("two characters swapped", good[:9] + good[10] + good[9] + good[11:]),
        ("a digit that is none", good[:-1] + "_"),
        ("a group beyond 65,535", "FLOE1::::" + good[9:]),
        ("no content", holding(b"")),
        ("flags unknown", holding(content[:92] + b"\x09" + content[93:])),
        ("a login unknown", holding(content[:92] + b"\7" + content[93:])),
        ("port 0", holding(content[:88] + b"\0\0" + content[90:])),
        ("a byte behind it", holding(content + b"\0")),
        ("the last text cut", holding(content[:-1])),
        ("a name in capitals", holding(content.replace(b"\4main", b"\4Main"))),
        ("no lineage", holding(content.replace(b"\4main", b"\0"))),
        ("a name with a line break", holding(content.replace(b"\4main", b"\4mai\n"))),
        ("a name that is not ASCII", holding(content.replace(b"\4main", b"\4ma\xc3\xaf"))),
        ("a broker with a blank", holding(content.replace(b"broker.example", b"broker example"))),
    ]
    return [{"name": name, "text": text} for name, text in cases]


def base41(raw: bytes) -> str:
    pairs = [raw[at : at + 2] for at in range(0, len(raw), 2)]
    return "".join(BASE41[int.from_bytes(pair) // 41**place % 41] for pair in pairs for place in range(len(pair) + 1))


def read_base41(text: str) -> bytes:
    groups = [text[at : at + 3] for at in range(0, len(text), 3)]
    numbers = [(sum(BASE41.index(c) * 41**place for place, c in enumerate(group)), len(group) - 1) for group in groups]
    return b"".join(number.to_bytes(length) for number, length in numbers)
