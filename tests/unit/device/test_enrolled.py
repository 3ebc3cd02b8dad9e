"""What a running device does about the roster: asks until it is let in, changes its keys, ends when it is put out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers.office import FEDERATION, HEAD, LINEAGE, Office, QuietWire, Unit, received
from helpers.wire import EVE

from edge_client import enrolled as module
from edge_client.asked import Asked, forget_asked, keep_asked, kept_asked
from edge_client.data.features import Features
from edge_client.device import Device
from edge_client.enrolled import AGAIN_S, FIRST_S, Enrolled
from edge_client.memory import Memory
from floe.documents import JoinReply, JoinRequest
from floe.errors import KeyFileError, Refused, StoreError
from floe.hpke import sealing_text
from floe.keyring import EnrolledKeyring
from floe.messages import Manifest, Phase
from floe.own_keys import load_next, take_next
from floe.parcel import pack
from floe.roster import open_join
from floe.schema import Schema
from floe.session import Received
from floe.settings import Config
from floe.settings import Device as DeviceSettings
from floe.signing import verify
from floe.topics import CurrentRoster, DeviceJoin, EntryTo, JoinReplyTo


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The device's clock."""
    moment = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: moment[0])
    return moment


class Running:
    """A device's part in enrolment, on a wire that leads to its office."""

    def __init__(self, unit: Unit) -> None:
        self.unit, self.office = unit, unit.office
        unit.start()
        keyring = EnrolledKeyring("chacha20-poly1305", None, unit.keys.sealing, unit.membership.ring)
        self.wire = QuietWire(unit.keys.identity, unit.state / "sequence")
        self.enrolled = Enrolled(Config(), unit.membership, unit.keys, keyring, unit.state)

    def go_on(self) -> list[JoinRequest]:
        """What it asks now."""
        self.wire.sent.clear()
        self.enrolled.go_on(self.wire)
        return [verify(payload, JoinRequest) for _, payload in self.wire.sent]

    def answered(self) -> JoinReply:
        """The last request reaches the aggregator; its answer is handed on by `hear_reply`."""
        topic = DeviceJoin(FEDERATION, self.unit.name, LINEAGE)
        self.office.desk.receive(topic, received(topic, self.wire.sent[-1][1]))
        return self.office.wire.newest(JoinReply)

    def hear_reply(self, payload: bytes | None = None) -> None:
        topic = JoinReplyTo(FEDERATION, LINEAGE, self.unit.name)
        replies = [sent for where, sent in self.office.wire.sent if where == str(topic)]
        self.enrolled.receive(self.wire, topic, received(topic, payload or replies[-1]))

    def hear(self) -> bool:
        """What is retained comes; whether that lets the device in."""
        head, entry = CurrentRoster(FEDERATION, LINEAGE), EntryTo(FEDERATION, LINEAGE, self.unit.name)
        let_in = self.enrolled.receive(self.wire, head, received(head, self.office.retained[HEAD]))
        if self.unit.entry is not None:
            let_in |= self.enrolled.receive(self.wire, entry, received(entry, self.unit.entry))
        return let_in


def joined(office: Office, name: str = "ann") -> Unit:
    """It has asked, by `floe join`, and waits."""
    unit, token = Unit(office, name), office.invite(name)
    assert unit.ask(token).state == "pending"
    sealing = sealing_text(office.sealing.public_key())
    keep_asked(unit.state, Asked(token, unit.nonce, unit.public.signing, sealing, 1))
    return unit


def test_a_device_that_waits_asks_again_with_its_kept_request(office: Office, now: list[float]) -> None:
    ann = joined(office)
    running = Running(ann)
    running.enrolled.connected()
    assert running.go_on() == []
    now[0] += FIRST_S
    (request,) = running.go_on()
    join, asked = open_join(request, office.sealing), kept_asked(ann.state)
    assert asked is not None
    assert (join.nonce, join.token, join.keys) == (ann.nonce, asked.token, ann.public)
    assert running.answered().state == "pending"
    assert running.go_on() == []
    now[0] += AGAIN_S
    assert len(running.go_on()) == 1
    running.enrolled.connected()
    now[0] += FIRST_S
    assert len(running.go_on()) == 1, "the broker may have lost what was retained"


def test_nothing_is_announced_before_the_newest_head_has_come_or_was_waited_for(
    office: Office, now: list[float]
) -> None:
    """Whatever is sealed before would be sealed to keys that may be gone."""
    ann = Unit(office, "ann")
    ann.join()
    running = Running(ann)
    old = office.retained[HEAD]
    running.enrolled.connected()
    assert not running.enrolled.may_announce
    running.hear()
    assert running.enrolled.may_announce, "the same head as before is an answer too"
    Unit(office, "bob").join()
    running.hear()
    running.enrolled.connected()
    head = CurrentRoster(FEDERATION, LINEAGE)
    with pytest.raises(Refused, match="goes back"):
        running.enrolled.receive(running.wire, head, received(head, old))
    assert not running.enrolled.may_announce
    now[0] += FIRST_S
    assert running.enrolled.may_announce


def test_an_entry_that_was_lost_comes_again_when_it_is_asked_for(office: Office, now: list[float]) -> None:
    ann = joined(office)
    running = Running(ann)
    office.approve("ann")
    office.retained.pop(str(EntryTo(FEDERATION, LINEAGE, "ann")))
    assert not running.hear()
    running.go_on()
    assert running.answered().state == "approved"
    assert running.hear()
    assert running.enrolled.is_approved
    assert running.go_on() == []
    assert kept_asked(ann.state) is None
    assert ann.nonce not in repr(vars(running.enrolled)), "another request has another nonce"


def test_a_member_that_has_lost_its_roster_asks_without_a_token(office: Office, now: list[float]) -> None:
    ann = Unit(office, "ann")
    ann.join()
    (ann.state / "roster.json").unlink()
    office.retained.pop(str(EntryTo(FEDERATION, LINEAGE, "ann")))
    running = Running(ann)
    assert running.go_on() == [], "there is no key to seal to yet"
    running.hear()
    now[0] += AGAIN_S
    assert len(running.go_on()) == 1
    assert running.answered().state == "approved"
    assert running.hear()


def test_a_roster_that_was_lost_comes_back_as_new_as_it_was(
    office: Office, now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The memory knows its version: an older one that is shown then is refused."""
    ann = Unit(office, "ann")
    ann.join()
    old = dict(office.retained)
    older = (ann.state / "roster.json").read_bytes()
    Unit(office, "bob").join()
    ann.hear()
    memory = Memory(ann.state)
    memory.saw_roster(ann.membership.ring.version)
    memory.saw_roster(1)
    newest, office.retained = dict(office.retained), old
    for kept, said in ((None, "missing"), (older, "an older copy, of version 2")):
        (ann.state / "roster.json").unlink()
        if kept:
            (ann.state / "roster.json").write_bytes(kept)
        running = Running(ann)
        running.enrolled.expect(Memory(ann.state).roster)
        assert f"roster.json: {said}; waiting for version 3" in capsys.readouterr().err
        assert not running.enrolled.is_approved
        with suppress(Refused):  # the copy's own head is no news
            running.hear()
        assert not running.enrolled.is_approved
    office.retained = newest
    running.hear()
    assert running.enrolled.is_approved


def test_a_roster_of_which_nothing_is_known_any_more_is_told_of(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    ann = Unit(office, "ann")
    ann.join()
    Running(ann).enrolled.expect(0)
    assert capsys.readouterr().err.count("forgotten") == 0
    (ann.state / "roster.json").unlink()
    Running(ann).enrolled.expect(Memory(ann.state).roster)
    assert "roster.json: missing, and memory.json does not know either" in capsys.readouterr().err
    waiting = joined(office, "bob")
    Running(waiting).enrolled.expect(0)
    assert "forgotten" not in capsys.readouterr().err


def test_what_was_asked_with_other_keys_is_not_asked_again(office: Office, now: list[float]) -> None:
    ann = joined(office)
    load_next(ann.state, "ann")
    take_next(ann.state, ann.name)
    running = Running(ann)
    running.hear()
    (request,) = running.go_on()
    join = open_join(request, office.sealing)
    assert join.token == ""
    assert join.nonce != ann.nonce


def test_who_is_rejected_or_refused_while_it_waits_ends_with_the_reason(office: Office, now: list[float]) -> None:
    ann = joined(office)
    running = Running(ann)
    running.hear()
    office.log.db.execute("DELETE FROM requests")
    office.log.db.execute("DELETE FROM invitations")
    running.go_on()
    assert running.answered().state == "refused"
    with pytest.raises(KeyFileError, match="aggregator 'main' refuses 'ann': there is no such invitation here"):
        running.hear_reply()
    bob = joined(office, "bob")
    office.order("reject", name="bob", request=bob.nonce)
    other = Running(bob)
    other.hear()
    with pytest.raises(KeyFileError, match=r"'bob' has been rejected by an operator\. Ask for a new code"):
        other.hear_reply()


@pytest.mark.parametrize("wrong", ["nonce", "to", "key"])
def test_an_answer_to_another_or_by_another_ends_nothing(office: Office, now: list[float], wrong: str) -> None:
    ann = joined(office)
    running = Running(ann)
    running.hear()
    fields = {"nonce": "0" * 32 if wrong == "nonce" else ann.nonce, "to": "bob" if wrong == "to" else "ann"}
    signer = EVE if wrong == "key" else office.identity
    reply = JoinReply(
        federation=FEDERATION, sender=LINEAGE, key=signer.key, proof="", seq=1, to_key=ann.public.signing, challenge="",
        state="rejected", version=9, **fields,
    )  # fmt: skip
    if wrong == "key":
        with pytest.raises(Refused, match="unknown-key"):
            running.hear_reply(signer.sign(reply))
    else:
        running.hear_reply(signer.sign(reply))
    office.approve("ann")
    assert running.hear(), "the version of an answer that is none of ours was believed"


def rotated(office: Office) -> tuple[Unit, Running]:
    ann = Unit(office, "ann")
    ann.join()
    running = Running(ann)
    assert running.go_on() == []
    office.order("rotate", name="ann")
    running.hear()
    return ann, running


def test_other_keys_are_made_when_an_operator_asks_and_vouched_for_by_the_old_one(
    office: Office, now: list[float]
) -> None:
    ann, running = rotated(office)
    (request,) = running.go_on()
    following = load_next(ann.state, "ann")
    assert request.key == following.identity.key != ann.public.signing
    assert running.answered().state == "pending"
    assert running.go_on() == []
    now[0] += AGAIN_S
    assert len(running.go_on()) == 1
    assert not running.enrolled.changed_keys
    office.approve("ann")
    running.hear()
    assert running.enrolled.changed_keys
    take_next(ann.state, ann.name)
    again = Running(ann)
    assert again.hear()
    assert again.go_on() == []


def test_a_device_in_whose_place_another_was_let_in_is_told(office: Office, now: list[float]) -> None:
    ann, running = rotated(office)
    running.go_on()
    running.answered()
    office.approve("ann")
    (ann.state / "keys-next" / "ann.pem").unlink()
    with pytest.raises(KeyFileError, match="let another device in under the name 'ann'"):
        running.hear()
    assert not running.enrolled.changed_keys


def test_other_keys_that_were_rejected_may_be_asked_for_again(
    office: Office, now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    _, running = rotated(office)
    (request,) = running.go_on()
    running.answered()
    nonce = open_join(request, office.sealing).nonce
    assert office.order("reject", name="ann", request=nonce).done
    running.hear_reply()
    assert "other keys were rejected: by an operator" in capsys.readouterr().err
    running.hear()
    now[0] += AGAIN_S
    assert running.go_on() == []
    assert running.enrolled.is_approved
    office.order("rotate", name="ann")
    running.hear()
    assert len(running.go_on()) == 1
    assert running.answered().state == "pending"


def test_a_revoked_device_ends_and_says_what_to_do(office: Office, now: list[float]) -> None:
    ann = Unit(office, "ann")
    ann.join()
    running = Running(ann)
    office.revoke("ann")
    for _ in range(2):
        with pytest.raises(KeyFileError, match=r"'ann' has been revoked by an operator: .* `floe join` here"):
            running.hear()
        running = Running(ann)


def test_an_answer_against_the_roster_is_doubted_by_members_only(office: Office) -> None:
    ann = joined(office)
    running = Running(ann)
    assert not running.enrolled.doubts("not-enrolled")
    office.approve("ann")
    running.hear()
    assert [running.enrolled.doubts(reason) for reason in ("revoked", "not-enrolled", "unknown-key", "device")] == [
        True, True, True, False,
    ]  # fmt: skip


def test_what_was_asked_is_kept_privately_until_it_is_over(tmp_path: Path) -> None:
    assert kept_asked(tmp_path) is None
    asked = Asked(secrets.token_hex(16), "0" * 32, "key", "sealing", 3)
    keep_asked(tmp_path, asked)
    path = tmp_path / "join.json"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert kept_asked(tmp_path) == asked
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"join\.json: damaged"):
        kept_asked(tmp_path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="mode 0644"):
        kept_asked(tmp_path)
    forget_asked(tmp_path)
    forget_asked(tmp_path)
    assert kept_asked(tmp_path) is None


def test_a_running_device_seals_what_waited_to_the_keys_of_the_head_that_comes(
    office: Office, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is connected, and approved by the head that it has kept; and it remembers the version of the new one."""
    ann = Unit(office, "ann")
    ann.join()
    running = Running(ann)
    rows, labels = np.zeros((2, 1), np.float32), np.array([0, 1])
    features = Features(rows, labels, rows, labels, Schema((1,), 2))
    config = Config(device=DeviceSettings(id="ann"), folder=office.folder)
    keyring = EnrolledKeyring("chacha20-poly1305", None, ann.keys.sealing, ann.membership.ring)
    device = Device(config, features, ann.keys.identity, keyring, ann.state, running.enrolled)
    phase = Phase(LINEAGE, 1, 1, "train")
    parts: dict[str, Any] = {"federation": FEDERATION, "phase": phase, "kind": "update", "sender": "ann", "base": ""}
    device._outbox.put(pack(ann.state / "outbox", None, "{}", keyring, **parts))
    device.wire.session = Mock(connected=True)
    sent: list[int] = []
    monkeypatch.setattr(
        device.wire, "send", lambda topic, kind, **fields: sent.extend([fields["roster"]] if kind is Manifest else [])
    )
    assert Memory(ann.state).roster == 2
    running.enrolled.connected()
    device._go_on()
    assert sent == []
    Unit(office, "bob").join()
    device._receive(Received(HEAD, office.retained[HEAD], 0, 0, True))
    device._go_on()
    assert sent == [3]
    assert Memory(ann.state).roster == 3
