"""Enrolment, from PROTOCOL.md alone: from the root to a card, the map of cards, joins. Imports nothing of Floe."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import hpke9180
from check_fields import check_struct, decode64, parse
from check_sealed import canonical, verify, verify_bytes, x25519

Json = dict[str, Any]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def document(case: Json, text: str, kind: str) -> Json:
    """Section 15.1: a document of the case's federation."""
    message = verify(text.encode(), kind)
    assert message["federation"] == case["federation"], "another federation"
    return message


def head_of(case: Json, text: str) -> tuple[Json, Json]:
    """Section 15.1, points 1 to 7: a head that leads to the root, and its delegation."""
    head = document(case, text, "head")
    delegation = document(case, head["delegation"], "delegation")
    assert (delegation["sender"], delegation["key"]) == ("root", case["root"]), "not by the root"
    operators = [(found["name"], found["key"]) for found in delegation["operators"]]
    assert (head["sender"], head["key"]) in operators, "not by an operator"
    assert head["issued"] <= delegation["until"], "the delegation had ended"
    lineages = [found["lineage"] for found in head["aggregators"]]
    assert head["group"] <= head["seq"]
    assert len(set(lineages)) == len(lineages)
    assert case["lineage"] in lineages, "the lineage is not named"
    return head, delegation


def check_follows(case: Json, text: str, before: str) -> None:
    """Section 15.1: what must not go back."""
    (new, by), (old, by_old) = head_of(case, text), head_of(case, before)
    assert new["seq"] != old["seq"] or text == before, "another head of this version"
    assert by["seq"] >= by_old["seq"], "serial"
    assert all(new[name] >= old[name] for name in ("seq", "issued", "group"))
    epochs = {found["lineage"]: found["epoch"] for found in old["aggregators"]}
    assert all(found["epoch"] >= epochs.get(found["lineage"], 0) for found in new["aggregators"]), "epoch"


def rosters(case: Json) -> None:
    """Every version leads to the root, follows all before, and its tree has the card that it brought, and no other."""
    cards: dict[str, str] = {}
    for number, version in enumerate(case["versions"]):
        head, _ = head_of(case, version["head"])
        for before in case["versions"][: number + 1]:
            check_follows(case, version["head"], before["head"])
        if version["card"]:
            card = document(case, version["card"], "card")
            assert all(card[name] == head[name] for name in ("sender", "key", "seq"))
            assert card["member"] == version["device"]
            assert card["state"] == "approved" or head["group"] == head["seq"]
            assert root_by(version["place"], version["device"], version["card"]) == head["tree"]
            cards[card["member"]] = version["card"]
        assert (tree_of(cards), len(cards)) == (head["tree"], head["count"])


def changed_roster(case: Json) -> None:
    head_of(case, case["head"])
    if case["before"]:
        check_follows(case, case["head"], case["before"])


def tree_of(cards: dict[str, str]) -> str:
    """Section 15.3: the root of all cards, from the definition."""
    leaves = [(bits(name), leaf_of(sha256(name.encode()), sha256(card.encode()))) for name, card in cards.items()]

    def subtree(prefix: str) -> bytes:
        there = [leaf for place, leaf in leaves if place.startswith(prefix)]
        if len(there) < 2:
            return there[0] if there else bytes(32)
        return sha256(b"\1" + subtree(prefix + "0") + subtree(prefix + "1"))

    return subtree("").hex()


def leaf_of(name: bytes, card: bytes) -> bytes:
    return sha256(b"\0" + name + card)


def bits(name: str) -> str:
    return hash_bits(sha256(name.encode()))


def hash_bits(place: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in place)


def root_by(proof: Json, name: str, card: str | None) -> str:
    """Section 15.3: the root that a proof gives."""
    check_struct(proof, "Proof")
    path, other = proof.get("path", []), proof.get("other")
    way, ends = bits(name)[: len(path)], []
    if card is not None:
        ends.append((bits(name), leaf_of(sha256(name.encode()), sha256(card.encode()))))
    if other is not None:
        place = hash_bits(bytes.fromhex(other["name"]))
        assert place.startswith(way), "a leaf that cannot stand there"
        assert place != bits(name), "the name's own leaf"
        ends.append((place, leaf_of(bytes.fromhex(other["name"]), bytes.fromhex(other["card"]))))
    node = _joined(sorted(ends), len(path))
    for bit, beside in reversed(list(zip(way, path, strict=True))):
        pair = (bytes.fromhex(beside), node) if bit == "1" else (node, bytes.fromhex(beside))
        node = sha256(b"\1" + pair[0] + pair[1])
    return node.hex()


def _joined(ends: list[tuple[str, bytes]], depth: int) -> bytes:
    if len(ends) < 2:
        return ends[0][1] if ends else bytes(32)
    (first, left), (second, right) = ends
    if first[depth] != second[depth]:
        return sha256(b"\1" + left + right)
    below = _joined(ends, depth + 1)
    return sha256(b"\1" + (below + bytes(32) if first[depth] == "0" else bytes(32) + below))


def trees(case: Json) -> None:
    assert tree_of(case["cards"]) == case["root"]
    for row in case["proofs"]:
        assert row["card"] == case["cards"].get(row["device"])
        assert root_by(row["proof"], row["device"], row["card"]) == case["root"]
        assert root_by(row["proof"], row["device"], "another card") == row["after"]
        assert tree_of(case["cards"] | {row["device"]: "another card"}) == row["after"]


def changed_tree(case: Json) -> None:
    assert root_by(case["proof"], case["device"], case["card"]) == case["root"]


def opened_join(case: Json) -> tuple[Json, Json]:
    """Section 15.4: a request and what is sealed in it."""
    request = verify(case["payload"].encode(), "join")
    names = (request["federation"], request["to"], request["sender"], request["key"])
    info = "\n".join(("floe-v1 join", *names)).encode()
    join = parse(hpke9180.open_sealed(x25519(case["aggregator"]), decode64(request["sealed"]), info))
    check_struct(join, "Join")
    assert join["keys"]["signing"] == request["key"], "signed by another key"
    return request, join


def joins(case: Json) -> None:
    request, join = opened_join(case)
    assert join == case["join"]
    keys = join["keys"]
    parts = (request["federation"], request["sender"], keys["signing"], keys["sealing"], join["nonce"])
    text = "\n".join(("floe-v1 number", *parts, case["challenge"]))
    assert f"{int.from_bytes(sha256(text.encode())) % 1_000_000:06}" == case["number"]
    if case["old_key"]:
        named = {"federation": request["federation"], "device": request["sender"], "keys": keys}
        endorsements(named | {"endorsement": join["endorsement"], "old_key": case["old_key"]})


def endorsements(case: Json) -> None:
    """Section 15.6."""
    check_struct(case["keys"], "Keys")
    text = f"floe-v1 rotation\n{case['federation']}\n{case['device']}\n".encode() + canonical(case["keys"])
    verify_bytes(case["old_key"], case["endorsement"], text)


def opened_entry(case: Json) -> tuple[Json, bytes]:
    """Section 15.7: an entry, and the group key that is sealed in it to one device."""
    entry = verify(case["payload"].encode(), "entry")
    info = f"floe-v1 group\n{entry['federation']}\n{entry['sender']}\n{entry['to']}\n{entry['group']}".encode()
    return entry, hpke9180.open_sealed(x25519(case["private"]), decode64(entry["group_key"]), info)


def entries(case: Json) -> None:
    entry, group_key = opened_entry(case)
    card = verify(entry["card"].encode(), "card")
    assert (group_key.hex(), card["member"]) == (case["group_key"], entry["to"])


def documents(case: Json) -> None:
    message = verify(case["payload"].encode(), case["type"])
    assert (message["federation"], message["proof"]) == ("floe", "")
    if message["type"] == "managed" and message["place"]:
        proven = root_by(message["place"], message["members"][0]["name"], message["card"])
        assert proven == json.loads(message["head"])["tree"]
