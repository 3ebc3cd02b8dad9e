"""What an aggregator says of the roster: to whom, in which order; and the group key that it keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from helpers.damage import DAMAGE
from helpers.office import FEDERATION, HEAD, LINEAGE, Office, Unit, received
from helpers.wire import EVE

from aggregator.certify import Certifier
from aggregator.entries import Entries
from floe.documents import Entry, JoinReply, RosterCommand
from floe.errors import KeyFileError, Refused
from floe.hpke import open_with
from floe.own_keys import load_next, take_next
from floe.roster import group_info, read_head
from floe.settings import Config
from floe.sign_roster import next_head
from floe.signing import from_text, verify
from floe.topics import EntryTo, OperatorRoster


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.stop()


def entry_of(office: Office, name: str) -> Entry:
    return verify(office.retained[str(EntryTo(FEDERATION, LINEAGE, name))], Entry)


def group_keys(office: Office) -> list[str]:
    return sorted(path.name for path in (office.state / "keys").glob("group-*"))


@pytest.mark.parametrize("action", ["list", "show", "invite", "change", "reject", "rotate"])
def test_every_reply_has_the_head_of_that_moment_also_a_refusal(office: Office, action: str) -> None:
    Unit(office, "ann").join()
    reply = office.order(action, name="bob", request="0" * 32)
    assert reply.head == office.roster.text
    assert (reply.to, reply.to_key, reply.command) == ("opa", office.operator.key, 1)
    made = next_head(office.roster, office.operator, 3000)
    assert office.order("change", head=made.head).head == made.head
    stranger = office.order(action, by=EVE)
    assert (stranger.done, stranger.head) == (False, made.head)


def test_a_command_for_another_lineage_is_not_followed(office: Office) -> None:
    before = office.dump()
    made = next_head(office.roster, office.operator, 3000)
    reply = office.order("change", to="other", head=made.head)
    assert (reply.done, reply.detail) == (False, "a command for 'other'")
    assert office.dump() == before


def test_a_command_in_another_operator_s_name_is_refused_without_a_reply(office: Office) -> None:
    command = RosterCommand(
        federation=FEDERATION, sender="opa", key=office.operator.key, proof="", seq=1, to=LINEAGE, action="list"
    )
    topic = OperatorRoster(FEDERATION, "eve", LINEAGE)
    office.wire.sent.clear()
    with pytest.raises(Refused, match="speaks on the topic of 'eve'"):
        office.desk.receive(topic, received(topic, office.operator.sign(command)))
    assert office.wire.sent == []


def test_an_approval_costs_one_head_and_one_entry_and_the_head_comes_first(office: Office) -> None:
    for name in ("ann", "bob", "cy"):
        Unit(office, name).join()
    Unit(office, "dan").ask(office.invite())
    made = office.approval("dan", office.order("show", name="dan").members[0].keys)
    office.wire.topics()
    assert office.change(made).done
    assert office.wire.topics() == ["roster", "to/dan/entry", "to/opa/roster"]
    card, renewed = office.changes[-1]
    assert (card and card.member, renewed) == ("dan", False)


def test_a_revocation_tells_everybody_the_new_group_key_and_the_revoked_one_nothing(office: Office) -> None:
    units = [Unit(office, name) for name in ("ann", "bob", "cy")]
    for unit in units:
        unit.join()
    old = office.ring.group_key
    made = office.revocation("bob")
    office.wire.topics()
    office.change(made)
    assert office.wire.topics() == ["roster", "to/bob/entry", "to/ann/entry", "to/cy/entry", "to/opa/roster"]
    assert entry_of(office, "bob").group_key == ""
    assert office.ring.group_key != old
    for unit in units:
        unit.hear()
    assert units[0].membership.ring.group_key == units[2].membership.ring.group_key == office.ring.group_key
    assert units[1].membership.ring.group_key == b""
    card, renewed = office.changes[-1]
    assert (card and card.state, renewed) == ("revoked", True)


def test_an_entry_opens_with_the_device_s_key_only(office: Office) -> None:
    ann, bob = Unit(office, "ann"), Unit(office, "bob")
    ann.join()
    entry = entry_of(office, "ann")
    info = group_info(FEDERATION, LINEAGE, "ann", entry.group)
    sealed = from_text(entry.group_key)
    assert open_with(ann.keys.sealing, sealed, info) == office.ring.group_key
    for private, other in (
        (bob.keys.sealing, info),
        (office.sealing, info),
        (ann.keys.sealing, group_info(FEDERATION, LINEAGE, "bob", entry.group)),
        (ann.keys.sealing, group_info(FEDERATION, LINEAGE, "ann", entry.group + 1)),
    ):
        with pytest.raises(Refused, match="unsealing"):
            open_with(private, sealed, other)


def test_a_sealing_key_that_is_none_harms_nobody_else(office: Office) -> None:
    ann, bob = Unit(office, "ann"), Unit(office, "bob")
    low = msgspec.structs.replace(ann.public, sealing="A" * 43)  # a point of low order
    assert office.change(office.approval("ann", low)).done
    assert entry_of(office, "ann").group_key == ""
    bob.join()
    assert office.revoke("ann").done
    bob.hear()
    assert bob.membership.ring.group_key == office.ring.group_key


def test_the_group_key_is_private_and_stays_over_a_restart(office: Office) -> None:
    assert group_keys(office) == ["group-1.key"]
    path = office.state / "keys" / "group-1.key"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    before = office.ring.group_key
    office.restart()
    assert office.ring.group_key == before
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="mode 0640"):
        office.restart()


def test_a_new_group_has_another_key_and_the_old_one_is_gone(office: Office) -> None:
    Unit(office, "ann").join()
    before = office.ring.group_key
    office.revoke("ann")
    assert group_keys(office) == ["group-3.key"]
    assert office.ring.group == 3
    assert office.ring.group_key != before
    assert len(office.ring.group_key) == 32


@pytest.mark.parametrize("damage", [*DAMAGE, "long"])
def test_a_damaged_group_key_is_named_and_left(office: Office, damage: str) -> None:
    path = office.state / "keys" / "group-1.key"
    if damage == "long":
        path.write_bytes(b"A" * 86)
    elif damage == "flipped":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    else:
        DAMAGE[damage](path)
        if not path.is_symlink():
            path.chmod(0o600)
    with pytest.raises(
        KeyFileError, match=f"{path}: (not a group key; remove it|cannot be read|a folder, where a file is needed)"
    ):
        office.restart()
    assert os.path.lexists(path)


def test_a_group_key_that_was_lost_is_made_anew_and_told_to_who_comes(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    before = office.ring.group_key
    (office.state / "keys" / "group-1.key").unlink()
    office.restart()
    office.desk.spoke("ann", again=False)
    ann.hear()
    assert ann.membership.ring.group_key == office.ring.group_key != before


def test_a_device_that_speaks_is_told_its_entry_once_and_again_when_it_has_just_come(office: Office) -> None:
    Unit(office, "ann").join()
    office.restart()
    office.desk.spoke("ann", again=False)
    assert office.wire.topics() == ["to/ann/entry"]
    office.desk.spoke("ann", again=False)
    assert office.wire.topics() == []
    office.desk.spoke("ann", again=True)
    assert office.wire.topics() == ["to/ann/entry"]
    office.desk.spoke("nobody", again=True)
    assert office.wire.topics() == []


def test_a_rotation_is_asked_for_until_the_device_has_other_keys(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    assert office.order("rotate", name="ann").done
    assert entry_of(office, "ann").rotate
    office.restart()
    office.desk.spoke("ann", again=True)
    assert entry_of(office, "ann").rotate, "forgotten over a restart"
    following = load_next(ann.state, "ann")
    ann.ask(keys=following, endorsement=ann.endorsement(following))
    assert entry_of(office, "ann").rotate
    old = office.ring.group_key
    office.approve("ann")
    assert not entry_of(office, "ann").rotate
    assert office.ring.group_key != old, "who has the old keys reads no model any more"
    with pytest.raises(Refused):
        ann.hear()
    take_next(ann.state, "ann")
    ann.start()
    ann.hear()
    assert ann.approved
    assert ann.membership.ring.group_key == office.ring.group_key


def test_a_rotation_that_is_rejected_is_asked_for_no_longer(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    office.order("rotate", name="ann")
    following = load_next(ann.state, "ann")
    ann.ask(keys=following, endorsement=ann.endorsement(following))
    office.wire.topics()
    assert office.order("reject", name="ann", request=ann.nonce).done
    assert office.wire.topics() == ["to/ann/entry", "to/ann/join", "to/opa/roster"]
    assert not entry_of(office, "ann").rotate


def test_who_is_rejected_is_told_with_its_own_nonce(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.ask(office.invite())
    office.wire.topics()
    office.order("reject", name="ann", request=ann.nonce)
    replies = [verify(payload, JoinReply) for topic, payload in office.wire.sent if topic.endswith("/join")]
    assert [(reply.state, reply.nonce, reply.to_key) for reply in replies] == [
        ("rejected", ann.nonce, ann.public.signing)
    ]


def test_a_new_head_alone_is_published_and_nobody_else_is_told(office: Office) -> None:
    Unit(office, "ann").join()
    made = next_head(office.roster, office.operator, 3000, aggregators=(office.aggregator(epoch=2),))
    office.wire.topics()
    office.order("change", head=made.head)
    assert office.wire.topics() == ["roster", "to/opa/roster"]
    assert office.changes[-1] == (None, False)


def test_a_head_that_an_operator_brings_to_a_restored_log_is_published_when_it_is_complete(office: Office) -> None:
    """The broker has lost the head, but not the entries."""
    backup = office.back_up()
    Unit(office, "ann").join()
    Unit(office, "bob").join()
    newest = office.roster.text
    entries = {topic: payload for topic, payload in office.retained.items() if topic.endswith("/entry")}
    office.retained.clear()
    office.restore(backup)
    assert office.order("list").head != newest
    assert not office.order("change", head=newest).done
    for topic, payload in entries.items():
        where = EntryTo(FEDERATION, LINEAGE, topic.split("/")[-2])
        office.desk.receive(where, received(where, payload))
    assert office.order("list").head == newest
    assert read_head(office.retained[HEAD].decode(), office.anchor).text == newest
    assert [card for card, _ in office.changes[-1:]] == [None]


def test_entries_hand_out_nothing_before_the_group_key_of_the_head(office: Office) -> None:
    """A process that died between the head and its group key makes that key at its start."""
    ann = Unit(office, "ann")
    ann.join()
    made = office.revocation("ann")
    office.members.change(made.head, made.card)  # and no further
    assert group_keys(office) == ["group-1.key"]
    office.restart()
    assert group_keys(office) == ["group-3.key"]
    assert office.ring.group == 3
    certifier = Certifier(Config(folder=office.folder), office.log)
    entries = Entries(office.wire, office.members, office.ring, LINEAGE, office.state / "keys", certifier)
    assert entries.renew() is False
    office.desk.spoke("ann", again=True)
    assert entry_of(office, "ann").group_key == ""
