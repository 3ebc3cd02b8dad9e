"""The roster: only the chain root, delegation, head is believed, whatever is changed in it, and it never goes back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from helpers.wire import ROB, golden, names
from hypothesis import given
from hypothesis import strategies as st

from floe import documents as d
from floe.errors import Refused
from floe.identity import Identity
from floe.messages import Message
from floe.roster import Anchor, Roster, check_follows, number_of, read_card, read_delegation, read_head
from floe.signing import to_text


def _identity(name: str, number: int) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


ROOT, OPA, OPB, MAIN, EVE = (_identity(*who) for who in (("root", 1), ("opa", 2), ("opb", 3), ("main", 4), ("eve", 5)))
ANCHOR = Anchor("floe", ROOT.key)
SEALING = to_text(bytes(range(32)))
ANYBODY = [ROOT, OPA, OPB, MAIN, EVE, Identity("rob", ROB.private)]
UNTIL = 2_000
FIELDS = ("version", "serial", "issued", "group", "epoch")


def _signed(who: Identity, kind: type[Message], seq: int, **fields: Any) -> str:
    header = {"federation": "floe", "sender": who.name, "key": who.key, "proof": "", "seq": seq}
    return who.sign(kind(**(header | fields))).decode()


def _delegation(
    serial: int = 1, by: Identity = ROOT, operators: tuple[Identity, ...] = (OPA, OPB), **fields: Any
) -> str:
    named = tuple(d.Operator(who.name, who.key) for who in operators)
    return _signed(by, d.Delegation, serial, **({"operators": named, "until": UNTIL} | fields))


def _head(version: int = 5, by: Identity = OPA, epoch: int = 1, serial: int = 1, **fields: Any) -> str:
    own: dict[str, Any] = {
        "issued": 1_000, "tree": "0" * 64, "count": 0, "group": 1, "delegation": _delegation(serial),
        "aggregators": (d.Aggregator("main", MAIN.key, SEALING, epoch),),
    }  # fmt: skip
    return _signed(by, d.Head, version, **(own | fields))


def _refused(text: str, anchor: Anchor = ANCHOR) -> str:
    with pytest.raises(Refused) as refusal:
        read_head(text, anchor)
    return refusal.value.reason


@given(st.sampled_from(ANYBODY), st.sampled_from(ANYBODY), st.sets(st.sampled_from(["opa", "opb"]), min_size=1))
def test_only_a_head_by_an_operator_whom_the_root_has_named_is_believed(
    by: Identity, head_by: Identity, named: set[str]
) -> None:
    operators = tuple(who for who in (OPA, OPB) if who.name in named)
    text = _head(by=head_by, delegation=_delegation(by=by, operators=operators))
    if by is ROOT and head_by in operators:
        assert read_head(text, ANCHOR).aggregator("main").signing == MAIN.key
    else:
        assert _refused(text) == "unknown-key"


@given(st.permutations(["delegation", "head", "card"]))
def test_only_in_its_own_place_is_a_document_what_it_is(order: list[str]) -> None:
    keys = d.Keys(signing=EVE.key, sealing=SEALING, suites=("aes-256-gcm",))
    texts = {
        "delegation": _delegation(), "head": _head(),
        "card": _signed(OPA, d.Card, 5, member="ann", state="approved", keys=keys),
    }  # fmt: skip
    readers = (read_delegation, read_head, read_card)
    for kind, reader in zip(order, readers, strict=True):
        if f"read_{kind}" == reader.__name__:
            assert reader(texts[kind], ANCHOR)
        else:
            with pytest.raises(Refused) as refusal:
                reader(texts[kind], ANCHOR)
            assert refusal.value.reason in ("malformed", "unknown-key")


@given(names, names)
def test_a_name_with_anothers_key_is_nobody(name: str, federation: str) -> None:
    strange = Identity(name, EVE.private)
    assert _refused(_head(by=strange)) == "unknown-key"
    assert _refused(_head(delegation=_delegation(by=Identity(name, OPA.private)))) == "unknown-key"
    if federation != "floe":
        assert _refused(_head(federation=federation)) == "not-for-us"
        assert _refused(_head(delegation=_delegation(federation=federation))) == "not-for-us"
        assert _refused(_head(), Anchor(federation, ROOT.key)) == "not-for-us"
    assert _refused(_head(), Anchor("floe", EVE.key)) == "unknown-key"


@given(st.data())
def test_no_byte_of_a_head_can_be_changed(data: st.DataObject) -> None:
    raw = bytearray(_head().encode())
    place, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    raw[place] ^= 1 << bit
    assert _refused(raw.decode(errors="replace")) in ("signature", "malformed", "unknown-version")


HEAD = json.loads(_head())


@pytest.mark.parametrize("field", sorted(set(HEAD) - {"sig"}))
@given(other=st.one_of(st.integers(0, 2**31), st.text(max_size=20), st.just([]), st.none()))
def test_a_field_of_a_head_that_is_another_than_was_signed_is_refused(field: str, other: object) -> None:
    if other == HEAD[field]:
        return
    changed = json.dumps(
        {name: other if name == field else value for name, value in HEAD.items()}, separators=(",", ":")
    )
    assert _refused(changed) in ("signature", "malformed", "unknown-version")


@pytest.mark.parametrize("field", d.Head.__struct_fields__)
def test_every_field_of_a_head_is_signed(field: str) -> None:
    assert field in HEAD


@given(st.integers(0, 2 * UNTIL), st.integers(0, 2 * UNTIL))
def test_nothing_is_believed_that_was_issued_after_the_delegation_had_ended(issued: int, until: int) -> None:
    text = _head(issued=issued, delegation=_delegation(until=until))
    if issued <= until:
        assert read_head(text, ANCHOR).head.issued == issued
    else:
        assert _refused(text) == "roster"


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_group_key_is_of_this_version_or_one_before(version: int, group: int) -> None:
    text = _head(version, group=group)
    if group <= version:
        assert read_head(text, ANCHOR).head.group == group
    else:
        assert _refused(text) == "malformed"


numbers = st.fixed_dictionaries({name: st.integers(1, 3) for name in FIELDS})


def _roster(of: dict[str, int]) -> Roster:
    head = _head(of["version"] + 10, epoch=of["epoch"], serial=of["serial"], issued=of["issued"], group=of["group"])
    return read_head(head, ANCHOR)


@given(numbers, numbers)
def test_a_head_follows_where_nothing_goes_back_and_a_version_is_one_text(
    old: dict[str, int], new: dict[str, int]
) -> None:
    forward = all(new[name] >= old[name] for name in FIELDS)
    if forward and (new["version"] > old["version"] or new == old):
        check_follows(_roster(new), _roster(old))
    else:
        with pytest.raises(Refused) as refusal:
            check_follows(_roster(new), _roster(old))
        assert refusal.value.reason == "roster"


@pytest.mark.parametrize("field", FIELDS)
@given(numbers)
def test_whatever_else_grows_no_number_goes_back(field: str, old: dict[str, int]) -> None:
    new = {name: value + 1 for name, value in old.items()} | {field: old[field] - 1 if field != "epoch" else 1}
    before = _roster(old | {"epoch": 2} if field == "epoch" else old)
    with pytest.raises(Refused, match="goes back behind"):
        check_follows(_roster(new), before)


@given(st.integers(1, 5), st.integers(1, 5))
def test_the_epoch_of_each_lineage_counts_for_itself_and_one_may_come_or_go(main: int, other: int) -> None:
    def roster(version: int, *pairs: tuple[str, int]) -> Roster:
        named = tuple(d.Aggregator(lineage, MAIN.key, SEALING, epoch) for lineage, epoch in pairs)
        return read_head(_head(version, aggregators=named), ANCHOR)

    before = roster(5, ("main", main))
    check_follows(roster(6, ("main", main), ("other", other)), before)
    check_follows(roster(6, ("other", other)), before)
    with pytest.raises(Refused, match="epoch of main"):
        check_follows(roster(6, ("other", 5), ("main", main)), roster(5, ("main", main + 1)))


def test_a_lineage_that_the_roster_has_not_is_not_enrolled() -> None:
    with pytest.raises(Refused) as refusal:
        read_head(_head(), ANCHOR).aggregator("mine")
    assert refusal.value.reason == "not-enrolled"


@given(st.data())
def test_the_number_is_of_all_that_it_compares(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(golden("valid/joins")))
    request, keys = json.loads(case["payload"]), msgspec.convert(case["join"]["keys"], d.Keys)
    parts = [request["federation"], request["sender"], keys, case["join"]["nonce"], case["challenge"]]
    assert number_of(*parts) == case["number"]
    others = {
        0: "other", 1: "eve", 2: msgspec.structs.replace(keys, sealing=SEALING), 3: "0" * 32, 4: "0" * 32,
        5: msgspec.structs.replace(keys, signing=EVE.key),
    }  # fmt: skip
    place = data.draw(st.sampled_from(sorted(others)))
    changed = [others[place] if at == (place if place < 5 else 2) else part for at, part in enumerate(parts)]
    assert number_of(*changed) != case["number"]
    assert len(number_of(*changed)) == 6
