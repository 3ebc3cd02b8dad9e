"""Floe agrees with the golden files of enrolment."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from helpers.wire import golden

from floe import documents as d
from floe import merkle
from floe import messages as m
from floe.errors import ConfigError, Refused
from floe.hpke import open_with
from floe.joincode import JoinCode, read_code, write_code
from floe.roster import (
    Anchor,
    check_endorsed,
    check_follows,
    group_info,
    hash_of_card,
    number,
    open_join,
    read_card,
    read_head,
)
from floe.signing import from_text, verify

KINDS: dict[str, type[m.Message]] = {
    "delegation": d.Delegation, "card": d.Card, "head": d.Head, "entry": d.Entry, "join": d.JoinRequest,
    "joined": d.JoinReply, "manage": d.RosterCommand, "managed": d.RosterReply,
}  # fmt: skip


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in golden(name)]


def private(text: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(text))


@pytest.mark.parametrize("case", cases("valid/documents"))
def test_a_valid_document_is_read_and_written_to_the_same_bytes(case: dict[str, str]) -> None:
    message = verify(case["payload"].encode(), KINDS[case["type"]])
    assert case["payload"].encode().startswith(m.encode(message)[:-1])


def test_every_type_of_enrolment_has_an_example() -> None:
    assert {case["type"] for case in golden("valid/documents")} == set(KINDS)
    assert {kind.__struct_config__.tag: kind for kind in KINDS.values()} == KINDS


@pytest.mark.parametrize("case", cases("invalid/documents"))
def test_an_invalid_document_is_refused_with_its_reason(case: dict[str, str]) -> None:
    with pytest.raises(Refused) as refusal:
        verify(base64.b64decode(case["payload"]), KINDS[case["type"]])
    assert refusal.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("valid/rosters"))
def test_each_version_follows_all_before_and_proves_its_card(case: dict[str, Any]) -> None:
    anchor = Anchor(case["federation"], case["root"])
    seen = []
    for number_, version in enumerate(case["versions"], 1):
        roster = read_head(version["head"], anchor)
        assert roster.version == number_
        assert roster.aggregator(case["lineage"])
        for before in seen:
            check_follows(roster, before)
        seen.append(roster)
        if version["card"]:
            assert read_card(version["card"], anchor).member == version["device"]
            place = msgspec.convert(version["place"], d.Proof)
            found = merkle.root_with(place, version["device"], hash_of_card(version["card"]))
            assert found == roster.head.tree


@pytest.mark.parametrize("case", cases("invalid/rosters"))
def test_a_head_that_does_not_lead_to_the_root_or_goes_back_is_refused(case: dict[str, str]) -> None:
    anchor = Anchor(case["federation"], case["root"])
    with pytest.raises(Refused) as refusal:
        _believe(case, anchor)
    assert refusal.value.reason == case["reason"]


def _believe(case: dict[str, str], anchor: Anchor) -> None:
    roster = read_head(case["head"], anchor)
    roster.aggregator(case["lineage"])
    if case["before"]:
        check_follows(roster, read_head(case["before"], anchor))


@pytest.mark.parametrize("case", cases("valid/trees"))
def test_a_tree_and_its_proofs_are_as_the_case_says(case: dict[str, Any]) -> None:
    hashes = {name: hash_of_card(text) for name, text in case["cards"].items()}
    assert merkle.root_of(hashes) == case["root"]
    for row in case["proofs"]:
        proof = msgspec.convert(row["proof"], d.Proof)
        assert merkle.prove(hashes, row["device"]) == proof
        card = hash_of_card(row["card"]) if row["card"] else None
        assert merkle.root_with(proof, row["device"], card) == case["root"]
        assert merkle.root_with(proof, row["device"], hash_of_card("another card")) == row["after"]


@pytest.mark.parametrize("case", cases("invalid/trees"))
def test_an_invalid_proof_gives_another_root(case: dict[str, Any]) -> None:
    card = hash_of_card(case["card"]) if case["card"] else None
    assert merkle.root_with(msgspec.convert(case["proof"], d.Proof), case["device"], card) != case["root"]


@pytest.mark.parametrize("case", cases("valid/joins"))
def test_a_valid_request_opens_and_has_its_number(case: dict[str, Any]) -> None:
    request = verify(case["payload"].encode(), d.JoinRequest)
    join = open_join(request, private(case["aggregator"]))
    assert msgspec.to_builtins(join) == case["join"] | {"keys": msgspec.to_builtins(join.keys)}
    assert msgspec.convert(case["join"], d.Join) == join
    assert number(request, join, case["challenge"]) == case["number"]
    if case["old_key"]:
        check_endorsed(join.endorsement, case["old_key"], request.federation, request.sender, join.keys)


@pytest.mark.parametrize("case", cases("invalid/joins"))
def test_an_invalid_request_is_refused_with_its_reason(case: dict[str, str]) -> None:
    with pytest.raises(Refused) as refusal:
        open_join(verify(case["payload"].encode(), d.JoinRequest), private(case["aggregator"]))
    assert refusal.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("invalid/endorsements"))
def test_an_invalid_endorsement_is_refused(case: dict[str, Any]) -> None:
    keys = msgspec.convert(case["keys"], d.Keys)
    with pytest.raises(Refused) as refusal:
        check_endorsed(case["endorsement"], case["old_key"], case["federation"], case["device"], keys)
    assert refusal.value.reason == case["reason"]


def opened(case: dict[str, str]) -> str:
    entry = verify(case["payload"].encode(), d.Entry)
    info = group_info(entry.federation, entry.sender, entry.to, entry.group)
    return open_with(private(case["private"]), from_text(entry.group_key), info).hex()


@pytest.mark.parametrize("case", cases("valid/entries"))
def test_the_group_key_of_an_entry_opens(case: dict[str, str]) -> None:
    assert opened(case) == case["group_key"]


@pytest.mark.parametrize("case", cases("invalid/entries"))
def test_a_group_key_for_another_place_does_not_open(case: dict[str, str]) -> None:
    with pytest.raises(Refused) as refusal:
        opened(case)
    assert refusal.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("valid/hpke"))
def test_what_rfc_9180_seals_floe_opens(case: dict[str, str]) -> None:
    info, sealed = bytes.fromhex(case["info"]), bytes.fromhex(case["sealed"])
    assert open_with(private(case["private"]), sealed, info).hex() == case["plaintext"]


@pytest.mark.parametrize("case", cases("invalid/hpke"))
def test_what_is_sealed_to_another_or_altered_does_not_open(case: dict[str, str]) -> None:
    with pytest.raises(Refused) as refusal:
        open_with(private(case["private"]), bytes.fromhex(case["sealed"]), bytes.fromhex(case["info"]))
    assert refusal.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases("valid/codes"))
def test_a_valid_join_code_is_read_and_written(case: dict[str, Any]) -> None:
    assert asdict(read_code(case["text"])) == case["code"]
    assert write_code(JoinCode(**case["code"])) == case["text"]


@pytest.mark.parametrize("case", cases("invalid/codes"))
def test_an_invalid_join_code_is_not_taken(case: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="join code: "):
        read_code(case["text"])
