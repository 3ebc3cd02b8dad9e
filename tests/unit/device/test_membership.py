"""What a device believes of the roster: the golden roster and entries, in their order and out of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from helpers.wire import golden

from edge_client.membership import Membership
from floe.documents import Entry
from floe.errors import Refused
from floe.identity import Identity
from floe.roster import Anchor
from floe.signing import verify

(ROSTER,) = golden("valid/rosters")
HEADS = [version["head"].encode() for version in ROSTER["versions"]]
ANN, ROB = golden("valid/entries")
CARDS = {version["device"]: version["card"] for version in ROSTER["versions"]}
NEW_KEY = ANN["payload"].partition('signing\\":\\"')[2][:43]


def membership(state: Path, entry: dict[str, str] = ANN) -> Membership:
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(entry["private"]))
    return Membership(state, Anchor(ROSTER["federation"], ROSTER["root"]), entry["name"], "main", private)


def refused(hear: object, payload: bytes) -> str:
    with pytest.raises(Refused) as refusal:
        hear(payload)  # type: ignore[operator]
    return refusal.value.reason


def test_a_head_and_the_entry_make_a_member_also_after_a_restart(tmp_path: Path) -> None:
    assert membership(tmp_path).on_head(HEADS[6])
    assert membership(tmp_path).on_entry(ANN["payload"].encode())
    again = membership(tmp_path)
    assert again.is_approved(NEW_KEY)
    assert (again.ring.group, again.ring.group_key.hex()) == (6, ANN["group_key"])
    assert (again.ring.version, again.epoch) == (7, 2)
    assert not again.on_head(HEADS[6])
    assert not again.on_entry(ANN["payload"].encode())


def test_no_older_head_is_believed_also_after_a_restart(tmp_path: Path) -> None:
    for head in HEADS:
        assert membership(tmp_path).on_head(head)
    assert {refused(membership(tmp_path).on_head, head) for head in HEADS[:-1]} == {"roster"}


def test_an_entry_before_its_head_is_refused_and_taken_after_it(tmp_path: Path) -> None:
    ann = membership(tmp_path)
    assert refused(ann.on_entry, ANN["payload"].encode()) == "roster"
    ann.on_head(HEADS[3])
    assert refused(ann.on_entry, ANN["payload"].encode()) == "roster", "its card is of version 5"
    ann.on_head(HEADS[4])
    assert ann.on_entry(ANN["payload"].encode())


def test_below_the_version_that_there_is_at_least_nothing_is_believed(tmp_path: Path) -> None:
    membership(tmp_path).on_head(HEADS[4])
    membership(tmp_path).on_entry(ANN["payload"].encode())
    membership(tmp_path).expect(7)
    ann = membership(tmp_path)
    assert not ann.is_approved(NEW_KEY)
    assert refused(ann.on_head, HEADS[5]) == "roster"
    assert ann.on_head(HEADS[6])
    assert ann.is_approved(NEW_KEY)


def test_an_entry_or_a_card_of_another_device_is_not_ours(tmp_path: Path) -> None:
    rob = membership(tmp_path, ROB)
    rob.on_head(HEADS[6])
    assert refused(rob.on_entry, ANN["payload"].encode()) == "not-for-us"
    (private, *_) = (bytes.fromhex(case["private"]) for case in golden("valid/messages") if case["name"] == "round")
    main = Identity("main", Ed25519PrivateKey.from_private_bytes(private))
    mixed = msgspec.structs.replace(verify(ROB["payload"].encode(), Entry), card=CARDS["ann"])
    assert refused(rob.on_entry, main.sign(mixed)) == "not-for-us"
    assert rob.on_entry(main.sign(msgspec.structs.replace(mixed, card=CARDS["rob"])))


def test_a_card_that_is_revoked_is_told(tmp_path: Path) -> None:
    rob = membership(tmp_path, ROB)
    rob.on_head(HEADS[6])
    rob.on_entry(ROB["payload"].encode())
    assert rob.is_revoked
