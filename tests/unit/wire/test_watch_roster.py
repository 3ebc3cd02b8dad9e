"""What `floe tail` says of enrolment's messages, with the root's key and without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from helpers.office import FEDERATION, HEAD, LINEAGE, Office, Unit
from helpers.wire import EVE

from floe.documents import Card, Entry, RosterCommand
from floe.identity import Identity
from floe.messages import Status
from floe.session import Received
from floe.sign_roster import next_head
from floe.signing import short, verify
from floe.topics import DeviceJoin, DeviceStatus, EntryTo, OperatorRoster
from floe.watch import MAX_KNOWN, Line, Watch

OURS, UNKNOWN = "ok {}", "BAD unknown-key: {} is not the roster's, as far as it has been seen"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.stop()


def heard(watch: Watch, topic: object, payload: bytes) -> Line:
    (line,) = watch.message(Received(str(topic), payload, 1, 1, False), 0.0)
    return line


def entry_topic(name: str) -> str:
    return str(EntryTo(FEDERATION, LINEAGE, name))


def status(unit: Unit, by: Identity | None = None) -> bytes:
    by = by or unit.keys.identity
    message = Status(federation=FEDERATION, sender=unit.name, key=by.key, proof="", seq=1, state="online")
    return by.sign(message)


@pytest.mark.parametrize("rooted", [True, False])
def test_every_message_of_an_approval_in_words(office: Office, *, rooted: bool) -> None:
    ann = Unit(office, "ann")
    asked = ann.keys.identity.sign(ann.request(office.invite()))
    ann.ask(office.invite())
    office.approve("ann")
    command = RosterCommand(
        federation=FEDERATION, sender="opa", key=office.operator.key, proof="", seq=1, to=LINEAGE, action="show",
        name="ann",
    )  # fmt: skip
    watch = Watch(FEDERATION, office.anchor if rooted else None)
    head = heard(watch, HEAD, office.retained[HEAD])
    assert (head.kind, head.text) == ("head", "roster, version 2, 1 card(s), group key 1")
    of_root = "from the root" if rooted else "of an operator; without federation.pub nothing leads to the root"
    assert head.signature == f"ok {short(office.operator.key)}, {of_root}"
    lines = {line.topic.rpartition("main/")[2]: line for line in (heard(watch, *sent) for sent in office.wire.sent)}
    assert lines["to/ann/join"].text == "to ann: pending"
    assert lines["to/ann/entry"].text == "entry of ann, group key 1"
    assert lines["to/opa/roster"].text == "to opa: done: ann: approved, version 2"
    signatures = {line.signature for line in lines.values()}
    assert not any(signature.startswith("BAD") for signature in signatures)
    join = heard(watch, DeviceJoin(FEDERATION, "ann", LINEAGE), asked)
    assert join.text == "asks main to be let in, or for other keys"
    assert join.signature == f"ok {short(ann.public.signing)}, the key that it asks for"
    asks = heard(watch, OperatorRoster(FEDERATION, "opa", LINEAGE), office.operator.sign(command))
    assert asks.text == "asks main: show ann"
    assert asks.signature == f"ok {short(office.operator.key)}" + ("" if rooted else ", first key seen")


def test_a_rotation_and_a_refusal_in_words(office: Office) -> None:
    watch = Watch(FEDERATION, office.anchor)
    heard(watch, HEAD, office.retained[HEAD])
    Unit(office, "ann").join()
    office.order("rotate", name="ann")
    office.order("rotate", name="bob")
    said = [heard(watch, *sent).text for sent in office.wire.sent]
    assert "entry of ann, group key 1, asked for other keys" in said
    assert said[-1] == "to opa: not done: 'bob' is not an approved device"
    office.order("list")
    assert heard(watch, *office.wire.sent[-1]).text == "to opa: done: 1 device(s)"


def test_with_the_root_a_key_is_the_roster_s_and_not_the_first_that_was_seen(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    watch, topic = Watch(FEDERATION, office.anchor), DeviceStatus(FEDERATION, "ann")
    ours, unknown = OURS.format(short(ann.public.signing)), UNKNOWN.format(short(ann.public.signing))
    assert heard(watch, topic, status(ann)).signature == unknown
    assert ann.entry is not None
    assert heard(watch, entry_topic("ann"), ann.entry).signature.startswith("BAD unknown-key"), "by whom?"
    assert heard(watch, topic, status(ann)).signature == unknown
    heard(watch, HEAD, office.retained[HEAD])
    heard(watch, entry_topic("ann"), ann.entry)
    assert heard(watch, topic, status(ann)).signature == ours
    assert heard(watch, topic, status(ann, EVE)).signature == UNKNOWN.format(short(EVE.key))


def test_a_join_request_makes_no_key_known(office: Office) -> None:
    ann = Unit(office, "ann")
    watch = Watch(FEDERATION, office.anchor)
    heard(watch, HEAD, office.retained[HEAD])
    heard(watch, DeviceJoin(FEDERATION, "ann", LINEAGE), ann.keys.identity.sign(ann.request()))
    assert heard(watch, DeviceStatus(FEDERATION, "ann"), status(ann)).signature.startswith("BAD unknown-key")


def test_a_forged_head_or_entry_teaches_nothing(office: Office, tmp_path: Path) -> None:
    ann = Unit(office, "ann")
    ann.join()
    foreign = Office(tmp_path / "foreign")
    watch = Watch(FEDERATION, office.anchor)
    line = heard(watch, HEAD, foreign.retained[HEAD])
    assert line.signature == "BAD unknown-key: the delegation is not signed by the root of this federation"
    foreign.stop()
    heard(watch, HEAD, office.retained[HEAD])
    forger = Identity(LINEAGE, EVE.private)
    assert ann.entry is not None
    forged = forger.sign(msgspec.structs.replace(verify(ann.entry, Entry), key=forger.key))
    assert heard(watch, entry_topic("ann"), forged).signature == UNKNOWN.format(short(EVE.key))
    assert heard(watch, DeviceStatus(FEDERATION, "ann"), status(ann)).signature.startswith("BAD")


def test_a_head_that_goes_back_is_said_to_be_bad_and_its_operators_are_none(office: Office) -> None:
    old = office.retained[HEAD]
    bea = Identity("bea", EVE.private)
    brought = next_head(office.roster, bea, 3000, delegation=office.delegation(bea, serial=2))
    office.order("change", by=bea, head=brought.head)
    watch = Watch(FEDERATION, office.anchor)
    assert heard(watch, HEAD, office.retained[HEAD]).signature.endswith("from the root")
    assert heard(watch, HEAD, office.retained[HEAD]).signature.endswith("from the root")
    assert "goes back behind version 2" in heard(watch, HEAD, old).signature


def test_the_keys_of_a_large_roster_are_all_known(office: Office) -> None:
    watch = Watch(FEDERATION, office.anchor)
    heard(watch, HEAD, office.retained[HEAD])
    ann = Unit(office, "ann")
    ann.join()
    assert ann.entry is not None
    heard(watch, HEAD, office.retained[HEAD])
    heard(watch, entry_topic("ann"), ann.entry)
    entry = verify(ann.entry, Entry)
    card = verify(entry.card.encode(), Card)
    for number in range(MAX_KNOWN):
        text = office.operator.sign(msgspec.structs.replace(card, member=f"d{number}")).decode()
        payload = office.identity.sign(msgspec.structs.replace(entry, card=text, to=f"d{number}"))
        assert heard(watch, entry_topic(f"d{number}"), payload).signature.startswith("ok")
    assert heard(watch, DeviceStatus(FEDERATION, "ann"), status(ann)).signature == OURS.format(
        short(ann.public.signing)
    )
