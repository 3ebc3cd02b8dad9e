"""What becomes of an update when a key does not count, or counts no more: the device's, or our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers.office import FEDERATION, HEAD, LINEAGE, Office, Unit
from helpers.wire import ANN, core

from aggregator.intake import Expectation
from aggregator.log import Outcome
from aggregator.phases import Policy
from aggregator.receiver import Receiver
from aggregator.server import Aggregator
from aggregator.states import Answered, Event, Offline, State
from floe.errors import Refused
from floe.keyring import COMMON, EnrolledKeyring, Ring
from floe.messages import Envelope, Manifest, Phase, Want
from floe.own_keys import load_next, take_next
from floe.parcel import Parcel, pack
from floe.plan import Plan
from floe.settings import Rounds
from floe.sign_roster import next_head
from floe.signing import verify
from floe.topics import AnswerTo, DeviceChunk, DeviceManifest

PHASE = Phase(LINEAGE, 1, 1, "train")
METRICS = b'{"samples": 40, "after": {"loss": 0.5, "accuracy": 0.5}}'


@pytest.mark.parametrize("reason", ["unknown-key", "not-enrolled", "revoked", "roster"])
def test_who_does_not_count_is_told_so_unless_that_may_pass(reason: str, tmp_path: Path) -> None:
    def check_key(manifest: Manifest) -> None:
        raise Refused(reason, "as it is")

    wire, speakers, policy = Mock(federation="floe"), Mock(check_key=check_key), Mock()
    parts: dict[str, Any] = {"folder": tmp_path, "state": Mock(), "ended": Mock()}
    receiver = Receiver(wire, Mock(), speakers, Mock(), Mock(), policy, **parts)
    envelope = Envelope(to="main", wrap="hpke", key="")
    manifest = Manifest(federation="floe", sender="ann", key=ANN.key, proof="", seq=1, core=core(), envelope=envelope)
    with pytest.raises(Refused, match=reason):
        receiver.manifest(DeviceManifest("floe", "ann", "main", 3), manifest, b"")
    told = [call.kwargs["reason"] for call in wire.send.call_args_list if isinstance(call.args[0], AnswerTo)]
    assert told == ([] if reason == "roster" else [reason])
    parts["ended"].assert_not_called()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.stop()


class Line:
    """The receiver of an office in a round that is open for its devices; the models are not looked at."""

    def __init__(self, office: Office, *devices: str) -> None:
        self.office = office
        self.ended: list[Outcome] = []
        self.state = State(PHASE, stage="open", expected=frozenset(devices))
        self.start()

    def start(self) -> None:
        chain = Mock()
        chain.expectation.return_value = Expectation(PHASE, "b" * 64, Plan(), None, None, 10_000)
        self.receiver = Receiver(
            self.office.wire, chain, self.office.members, self.office.log, self.office.keyring,
            Policy(Rounds(), Plan()), folder=self.office.state / "incoming", state=lambda: self.state,
            ended=self.ended.append,
        )  # fmt: skip

    def announce(self, unit: Unit, parcel: Parcel, keyring: EnrolledKeyring) -> None:
        """Sealed as the device knows the roster."""
        envelope = parcel.envelope(keyring, LINEAGE)
        header = {"federation": FEDERATION, "sender": unit.name, "key": unit.public.signing, "proof": "", "seq": 1}
        made = Manifest(**header, core=parcel.core, envelope=envelope, roster=keyring.version)  # type: ignore[arg-type]
        payload = unit.keys.identity.sign(made)
        self.receiver.manifest(DeviceManifest(FEDERATION, unit.name, LINEAGE, 1), verify(payload, Manifest), payload)

    def send(self, unit: Unit, parcel: Parcel) -> None:
        for index in range(len(parcel.core.chunks)):
            topic = DeviceChunk(FEDERATION, unit.name, LINEAGE, 1, parcel.name, index)
            self.receiver.chunk(topic, parcel.chunk(index))

    def wanted(self) -> list[str]:
        """The transfers that were asked for since the last call."""
        sent = [verify(payload, Want) for topic, payload in self.office.wire.sent if topic.endswith("/want")]
        self.office.wire.sent.clear()
        return [want.transfer for want in sent]

    def outcomes(self) -> list[tuple[str, str]]:
        return [(ended.outcome, ended.reason) for ended in self.ended]


def sealing(unit: Unit) -> EnrolledKeyring:
    """A copy of what the device knows now: later heads do not change it."""
    ring = unit.membership.ring
    return EnrolledKeyring(COMMON, None, unit.keys.sealing, Ring(ring.version, dict(ring.recipients)))


def made_by(unit: Unit) -> Parcel:
    """An update with a few bytes of something."""
    return pack(
        unit.state, [memoryview(b"weights")], METRICS.decode(), sealing(unit), federation=FEDERATION, phase=PHASE,
        kind="update", sender=unit.name, base="b" * 64,
    )  # fmt: skip


def member(office: Office, name: str = "ann") -> Unit:
    unit = Unit(office, name)
    unit.join()
    return unit


def rotate_our_keys(office: Office) -> None:
    """The aggregator begins again with the keys that the next head names."""
    following = load_next(office.state, LINEAGE)
    keys = following.public((COMMON,))
    aggregators = (office.aggregator(signing=keys.signing, sealing=keys.sealing),)
    assert office.order("change", head=next_head(office.roster, office.operator, 3000, aggregators=aggregators).head)
    take_next(office.state, LINEAGE)
    office.identity, office.sealing = following.identity, following.sealing
    office.restart()


def test_an_update_sealed_to_our_keys_of_before_is_not_answered_and_taken_when_it_is_sealed_anew(
    office: Office,
) -> None:
    ann = member(office)
    line, parcel, before = Line(office, "ann"), made_by(ann), sealing(ann)
    rotate_our_keys(office)
    line.start()
    office.wire.sent.clear()
    with pytest.raises(Refused, match="made under version 2; here is 3") as refusal:
        line.announce(ann, parcel, before)
    assert refusal.value.reason == "roster"
    assert (office.wire.sent, line.ended) == ([], [])
    ann.membership.on_head(office.retained[HEAD])
    line.announce(ann, parcel, sealing(ann))
    assert line.wanted() == [parcel.name], "the envelope is another, the transfer is the same"


def test_an_update_that_does_not_open_though_it_is_of_the_newest_roster_is_rejected(office: Office) -> None:
    ann = member(office)
    line, parcel, keyring = Line(office, "ann"), made_by(ann), sealing(ann)
    keyring.ring.recipients[LINEAGE] = ann.public.sealing
    line.announce(ann, parcel, keyring)
    assert line.outcomes() == [("rejected", "unsealing")]


def begun(office: Office) -> tuple[Line, Unit, Parcel]:
    """An update under way: announced, and asked for."""
    ann = member(office)
    line, parcel = Line(office, "ann"), made_by(ann)
    office.wire.sent.clear()
    line.announce(ann, parcel, sealing(ann))
    assert line.wanted() == [parcel.name]
    return line, ann, parcel


def test_what_a_device_sends_when_it_is_revoked_ends_as_rejected(office: Office) -> None:
    line, _, _ = begun(office)
    line.receiver.check_keys()
    assert line.ended == []
    office.revoke("ann")
    line.receiver.check_keys("ann")
    assert line.outcomes() == [("rejected", "revoked")]


def test_what_is_complete_is_not_taken_from_a_device_that_was_revoked_meanwhile(office: Office) -> None:
    line, ann, parcel = begun(office)
    office.revoke("ann")
    line.send(ann, parcel)
    assert line.outcomes() == [("rejected", "revoked")]


@pytest.mark.parametrize("told", [True, False])
def test_what_was_announced_with_a_key_of_before_is_announced_again_with_the_new_one(
    office: Office, told: bool
) -> None:
    """Whoever has the old key brings nothing in, and the device's own update is not lost."""
    line, ann, parcel = begun(office)
    following = load_next(ann.state, "ann")
    ann.ask(keys=following, endorsement=ann.endorsement(following))
    assert office.approve("ann").done
    if told:
        line.receiver.check_keys("ann")
    else:
        line.send(ann, parcel)
    assert line.ended == []
    take_next(ann.state, "ann")
    ann.start()
    ann.hear()
    office.wire.sent.clear()
    line.announce(ann, parcel, sealing(ann))
    assert line.wanted() == [parcel.name]


def test_what_waits_for_its_turn_ends_too(office: Office) -> None:
    units = [member(office, name) for name in ("ann", "bob", "cleo", "dora", "emil", "fay", "gus", "hal", "ida")]
    line = Line(office, *(unit.name for unit in units))
    for unit in units:
        unit.hear()
        line.announce(unit, made_by(unit), sealing(unit))
    waiting = [unit.name for unit in units if line.receiver.waits(unit.name)]
    assert waiting
    office.revoke(waiting[-1])
    line.receiver.check_keys()
    assert [(ended.device, ended.reason) for ended in line.ended] == [(waiting[-1], "revoked")]


def test_who_is_missing_in_a_roster_that_was_restored_is_not_waited_for() -> None:
    """Without a card that says so."""
    state = State(PHASE, stage="open", expected=frozenset({"ann", "bob"}), online=frozenset({"ann", "bob", "cleo"}))
    aggregator = Mock(_state=state)
    steps: list[Event] = []
    aggregator._conductor.step = steps.append
    aggregator._members.approved.return_value = ["ann"]
    aggregator._put_out = lambda card: Aggregator._put_out(aggregator, card)
    Aggregator._on_roster(aggregator, None, False)
    aggregator._receiver.check_keys.assert_called_once_with("")
    assert steps == [Answered("bob", accepted=False, late=False), Offline("bob"), Offline("cleo")]
