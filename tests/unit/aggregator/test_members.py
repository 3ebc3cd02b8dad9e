"""The roster as an aggregator keeps it: what a head or a card must be to be taken; a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.damage import DAMAGE
from helpers.office import LINEAGE, UNTIL, Office, Unit, received
from helpers.wire import ANN, EVE

from aggregator.log import Log
from aggregator.members import Members
from floe import merkle
from floe.documents import Card, Entry, Head
from floe.errors import KeyFileError, Refused
from floe.identity import Identity, load_identity
from floe.keyring import EnrolledKeyring, Ring
from floe.messages import Status
from floe.roster import hash_of_card
from floe.sign_roster import Change, next_head
from floe.signing import verify
from floe.topics import EntryTo

NOW = 3000.0


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, clock=lambda: NOW)
    yield made
    made.stop()


@contextmanager
def refused(office: Office, reason: str, detail: str) -> Iterator[None]:
    """The block is refused for this reason, and has changed nothing, on disk or in memory."""
    before = office.dump()
    with pytest.raises(Refused, match=detail) as refusal:
        yield
    assert refusal.value.reason == reason
    assert office.dump() == before
    with closing(Log(office.folder / "log")) as log:
        stored = log.db.execute("SELECT head FROM heads").fetchone()[0]
    assert stored == office.roster.text


def head_with(office: Office, made: Change, by: Identity | None = None, **changes: Any) -> str:
    head = verify(made.head.encode(), Head)
    by = by or office.operator
    return by.sign(msgspec.structs.replace(head, sender=by.name, key=by.key, **changes)).decode()


def card_with(office: Office, made: Change, by: Identity | None = None, **changes: Any) -> Change:
    """Another card, and a head that counts it."""
    by, card = by or office.operator, verify(made.card.encode(), Card)
    text = by.sign(msgspec.structs.replace(card, sender=by.name, key=by.key, **changes)).decode()
    cards = office.members._cards() | {verify(text.encode(), Card).member: hash_of_card(text)}
    return Change(text, head_with(office, made, tree=merkle.root_of(cards), count=len(cards)))


WRONG_HEADS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a version is left out": ({"seq": 4}, "roster", "version 4 does not follow 2"),
    "the same version": ({"seq": 2}, "roster", "another version 2"),
    "an older version": ({"seq": 1, "group": 1}, "roster", "goes back behind version 2: version"),
    "an older time": ({"issued": 1999}, "roster", "goes back behind version 2: time"),
    "an older group": ({"group": 0}, "roster", "goes back behind version 2: group key"),
    "a group that is to come": ({"group": 4}, "malformed", "a group key of a later version"),
    "another tree": ({"tree": "0" * 64}, "roster", "the head's tree, or its count"),
    "another count": ({"count": 3}, "roster", "the head's tree, or its count"),
    "issued when the delegation had ended": ({"issued": UNTIL + 1}, "roster", "had ended"),
    "without us": ({"aggregators": "other"}, "not-enrolled", "has no aggregator 'main'"),
    "other signing key for us": ({"aggregators": {"signing": EVE.key}}, "roster", "names other keys for 'main'"),
    "other sealing key for us": ({"aggregators": {"sealing": "A" * 43}}, "roster", "names other keys for 'main'"),
    "us twice": ({"aggregators": "twice"}, "malformed", "a lineage twice"),
}


@pytest.mark.parametrize("wrong", WRONG_HEADS)
def test_a_head_that_is_not_the_next_changes_nothing(office: Office, wrong: str) -> None:
    changes, reason, detail = WRONG_HEADS[wrong]
    Unit(office, "ann").join()
    ours = office.aggregator()
    match changes.get("aggregators"):
        case "other":
            changes = {"aggregators": (msgspec.structs.replace(ours, lineage="other"),)}
        case "twice":
            changes = {"aggregators": (ours, ours)}
        case dict(other):
            changes = {"aggregators": (msgspec.structs.replace(ours, **other),)}
    made = office.approval("bob", Unit(office, "bob").public)
    with refused(office, reason, detail):
        office.members.change(head_with(office, made, **changes), made.card)
    office.members.change(made.head, made.card)


def test_an_epoch_does_not_go_back(office: Office) -> None:
    higher = next_head(office.roster, office.operator, 2000, aggregators=(office.aggregator(epoch=3),))
    assert office.members.change(higher.head, "") is None
    back = next_head(office.roster, office.operator, 2000, aggregators=(office.aggregator(epoch=2),))
    with refused(office, "roster", "epoch of main"):
        office.members.change(back.head, "")


def test_a_head_must_lead_to_our_root_by_an_operator_of_its_delegation(office: Office, tmp_path: Path) -> None:
    made = next_head(office.roster, office.operator, 2000)
    other = Office(tmp_path / "other")
    with refused(office, "unknown-key", "not signed by the root"):
        office.members.change(head_with(office, made, delegation=other.delegation(office.operator)), "")
    with refused(office, "unknown-key", "no operator of delegation 1"):
        office.members.change(head_with(office, made, by=Identity("opa", EVE.private)), "")
    with refused(office, "unknown-key", "no operator of delegation 1"):
        office.members.change(head_with(office, made, by=Identity("eve", office.operator.private)), "")
    with refused(office, "not-for-us", "federation 'elsewhere'"):
        office.members.change(head_with(office, made, federation="elsewhere"), "")
    other.stop()


def test_a_delegation_that_has_ended_lets_nobody_change_anything(tmp_path: Path) -> None:
    now = [NOW]
    office = Office(tmp_path, clock=lambda: now[0])
    made = next_head(office.roster, office.operator, 2000)
    now[0] = UNTIL + 1.0
    with refused(office, "unknown-key", "delegation 1 has ended: .*federation delegate"):
        office.members.change(made.head, "")
    assert "has ended" in office.members.operators().fault
    assert not office.order("change", head=made.head).done
    renewed = next_head(office.roster, office.operator, 2000, delegation=office.delegation(serial=2, until=UNTIL + 9))
    assert office.order("change", head=renewed.head).done, "it brings the delegation that lets it in"
    assert office.members.operators().fault == ""
    office.stop()


def test_an_older_delegation_does_not_come_back(office: Office) -> None:
    renewed = next_head(office.roster, office.operator, 2000, delegation=office.delegation(serial=2))
    office.members.change(renewed.head, "")
    older = next_head(office.roster, office.operator, 2000, delegation=office.delegation(serial=1))
    with refused(office, "roster", "serial of the delegation"):
        office.members.change(older.head, "")


def test_who_is_out_of_the_delegation_orders_nothing_about_and_who_comes_in_may(office: Office, tmp_path: Path) -> None:
    bea = load_identity(tmp_path / "bea", "bea")
    assert not office.order("list", by=bea).done
    brought = next_head(office.roster, bea, 2000, delegation=office.delegation(bea, serial=2))
    assert office.order("change", by=bea, head=brought.head).done
    refusal = office.order("list")
    assert (refusal.done, refusal.head) == (False, office.roster.text)
    assert "operator 'opa' with this key is not in delegation 2" in refusal.detail
    assert office.order("list", by=bea).done


WRONG_CARDS: dict[str, tuple[dict[str, Any], str]] = {
    "of an older version": ({"seq": 2}, "not of the version"),
    "of a later version": ({"seq": 4}, "not of the version"),
    "of a lineage's name": ({"member": LINEAGE}, "the name of an operator or a lineage"),
    "of an operator's name": ({"member": "opa"}, "the name of an operator or a lineage"),
    "of the root's name": ({"member": "root"}, "a name that no device has"),
    "of a broker's name": ({"member": "broker"}, "a name that no device has"),
    "of a name that is a level of topics": ({"member": "chunk"}, "a name that no device has"),
}


@pytest.mark.parametrize("wrong", WRONG_CARDS)
def test_a_card_that_is_not_its_head_s_changes_nothing(office: Office, wrong: str) -> None:
    changes, detail = WRONG_CARDS[wrong]
    Unit(office, "ann").join()
    made = card_with(office, office.approval("bob", Unit(office, "bob").public), **changes)
    with refused(office, "roster", detail):
        office.members.change(made.head, made.card)


def test_a_card_by_another_operator_than_the_head_s_changes_nothing(office: Office, tmp_path: Path) -> None:
    bea = load_identity(tmp_path / "bea", "bea")
    both = next_head(office.roster, bea, 2000, delegation=office.delegation(office.operator, bea, serial=2))
    office.members.change(both.head, "")
    made = card_with(office, office.approval("bob", Unit(office, "bob").public), by=bea)
    with refused(office, "roster", "not by the operator, of its head"):
        office.members.change(made.head, made.card)


def test_a_card_without_the_head_that_counts_it_or_a_head_without_its_card_changes_nothing(office: Office) -> None:
    made = office.approval("bob", Unit(office, "bob").public)
    with refused(office, "roster", "the head's tree"):
        office.members.change(made.head, "")
    with refused(office, "roster", "the head's tree"):
        office.members.change(next_head(office.roster, office.operator, 2000).head, made.card)


def test_a_revocation_needs_a_new_group_key(office: Office) -> None:
    Unit(office, "ann").join()
    made = office.revocation("ann")
    with refused(office, "roster", "a revocation needs a new group key"):
        office.members.change(head_with(office, made, group=1), made.card)
    assert office.members.change(made.head, made.card) is not None
    assert office.members.approved() == []


def test_a_device_whose_name_an_operator_has_got_since_can_still_be_revoked(office: Office, tmp_path: Path) -> None:
    Unit(office, "bea").join()
    bea = load_identity(tmp_path / "bea", "bea")
    both = next_head(office.roster, bea, 2000, delegation=office.delegation(office.operator, bea, serial=2))
    office.members.change(both.head, "")
    assert office.revoke("bea").done


def said(name: str, key: str) -> Status:
    return Status(federation="floe", sender=name, key=key, proof="", seq=1, state="online")


def test_only_who_is_approved_may_speak_and_only_with_its_key(office: Office) -> None:
    ann = Unit(office, "ann")
    with pytest.raises(Refused, match=r"not-enrolled: the roster, version 1, has no 'ann'"):
        office.members.check_key(said("ann", ann.public.signing))
    ann.ask(office.invite())
    with pytest.raises(Refused, match="not-enrolled"):
        office.members.check_key(said("ann", ann.public.signing))
    office.approve("ann")
    office.members.check_key(said("ann", ann.public.signing))
    with pytest.raises(Refused, match="unknown-key: the roster has another key for 'ann'"):
        office.members.check_key(said("ann", ANN.key))
    office.revoke("ann")
    with pytest.raises(Refused, match="revoked: 'ann' has been revoked"):
        office.members.check_key(said("ann", ann.public.signing))


def test_a_restart_goes_on_with_what_was_there(office: Office) -> None:
    for name in ("ann", "bob"):
        Unit(office, name).join()
    office.revoke("ann")
    before = office.roster.text, office.members.card("ann"), office.members.approved(), office.ring
    (office.state / "head").unlink()  # the log is the record
    office.restart()
    assert (office.roster.text, office.members.card("ann"), office.members.approved(), office.ring) == before


def members_of(office: Office, key: str | None = None) -> Members:
    keyring = EnrolledKeyring("aes-256-gcm", None, office.sealing, Ring())
    return Members(office.log, office.anchor, LINEAGE, key or office.identity.key, keyring, office.state)


def test_other_keys_than_the_roster_s_are_named_at_the_start(office: Office) -> None:
    with pytest.raises(KeyFileError, match=r"the roster in .*floe\.sqlite: version 1 names other keys"):
        members_of(office, key=EVE.key)


def test_a_log_whose_head_was_altered_is_named_at_the_start(office: Office) -> None:
    office.log.db.execute("UPDATE heads SET head = replace(head, '\"count\":0', '\"count\":1')")
    with pytest.raises(KeyFileError, match=r"the roster in .*floe\.sqlite: .*; restore it"):
        members_of(office)


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
def test_a_first_head_that_is_damaged_is_named(office: Office, damage: str) -> None:
    office.log.db.execute("DELETE FROM heads")
    path = office.state / "head"
    (DAMAGE | {"missing": Path.unlink})[damage](path)  # type: ignore[dict-item]
    with pytest.raises(KeyFileError, match=f"{path}: "):
        members_of(office)


def approve_after_backup(office: Office) -> Path:
    """Ann is in the backup; bob, and that ann was revoked, are not."""
    Unit(office, "ann").join()
    backup = office.back_up()
    Unit(office, "bob").join()
    office.revoke("ann")
    return backup


def entry_of(office: Office, name: str) -> bytes:
    return office.retained[str(EntryTo("floe", LINEAGE, name))]


def test_a_restored_log_fetches_what_is_missing_and_believes_nobody_meanwhile(office: Office) -> None:
    backup = approve_after_backup(office)
    newest, bob = office.roster, office.members.card("bob")
    office.stop()
    office.restore(backup)
    assert office.roster.text == newest.text
    assert (office.members.card("bob"), office.members.approved()) == (bob, ["bob"])
    assert not office.members.is_behind
    assert (office.ring.version, office.ring.group) == (newest.version, newest.head.group)
    office.restart()
    assert office.roster.text == newest.text


def behind(office: Office) -> None:
    """The log is restored, and nothing but the newest head is there yet."""
    backup = approve_after_backup(office)
    entries = {topic: payload for topic, payload in office.retained.items() if topic.endswith("/entry")}
    for topic in entries:
        del office.retained[topic]
    office.restore(backup)
    office.retained |= entries
    office.wire.sent.clear()
    assert office.members.is_behind


def test_while_a_newer_roster_is_not_complete_nothing_is_believed_or_changed(office: Office) -> None:
    behind(office)
    ann = Unit(office, "ann")
    before = dict(office.retained)
    for attempt in (
        lambda: office.members.check_key(said("ann", ann.public.signing)),
        lambda: ann.ask(),
        lambda: office.members.change(next_head(office.roster, office.operator, 2000).head, ""),
    ):
        with pytest.raises(Refused, match="roster: version 4 of the roster is not complete here yet"):
            attempt()
    assert not office.order("rotate", name="ann").done
    office.desk.greet()
    office.desk.spoke("ann", again=True)
    assert office.retained == before, "an older entry, or head, in the place of a newer one"


def test_a_head_is_seen_only_if_it_is_newer_and_ours(office: Office) -> None:
    old = office.roster.text
    Unit(office, "ann").join()
    assert not office.members.see_head(office.roster.text)
    assert not office.members.see_head(old)
    made = next_head(office.roster, office.operator, 2000, aggregators=(office.aggregator(signing=EVE.key),))
    with pytest.raises(KeyFileError, match="an older copy: version 3 names other keys"):
        office.members.see_head(made.head)
    with pytest.raises(Refused, match="goes back"):
        office.members.see_head(head_with(office, made, seq=9, issued=1, aggregators=(office.aggregator(),)))
    assert not office.members.is_behind


def test_cards_complete_a_newer_head_in_any_order(office: Office) -> None:
    behind(office)
    cards = [verify(entry_of(office, name), Entry).card for name in ("bob", "ann")]
    members = office.members
    assert not members.try_complete()
    assert not members.see_card(members.card("ann")), "an older card is no news"
    assert not members.see_card(cards[1])
    assert members.see_card(cards[0])
    assert members.card("bob") == cards[0]


def test_an_entry_that_is_not_ours_brings_no_card(office: Office) -> None:
    behind(office)
    entry = verify(entry_of(office, "bob"), Entry)
    topic = EntryTo("floe", LINEAGE, "bob")
    forged = Identity(LINEAGE, EVE.private).sign(msgspec.structs.replace(entry, key=EVE.key))
    with pytest.raises(Refused, match="unknown-key: an entry of 'bob' that is not ours"):
        office.desk.receive(topic, received(topic, forged))


def test_a_newer_head_with_the_same_cards_is_complete_at_once(office: Office) -> None:
    Unit(office, "ann").join()
    backup = office.back_up()
    office.order(
        "change", head=next_head(office.roster, office.operator, 2000, aggregators=(office.aggregator(epoch=2),)).head
    )
    newest = office.roster.text
    office.restore(backup)
    assert office.roster.text == newest
    assert not office.members.is_behind


def test_a_head_by_an_operator_whose_delegation_has_ended_is_not_seen_however_it_is_dated(tmp_path: Path) -> None:
    moment = [NOW]
    office = Office(tmp_path, clock=lambda: moment[0])
    made = next_head(office.roster, office.operator, 2000, ca="other")
    moment[0] = UNTIL + 1.0
    with pytest.raises(Refused, match="delegation 1 has ended"):
        office.members.see_head(head_with(office, made, seq=7, tree="ab" * 32))
    moment[0] = NOW
    with pytest.raises(Refused, match="which is to come"):
        office.members.see_head(head_with(office, made, seq=7, issued=int(NOW) + 7200))
    assert not office.members.is_behind
    office.stop()


def test_a_log_that_is_older_than_the_state_folder_believes_nobody_though_the_broker_shows_nothing(
    office: Office,
) -> None:
    ann = Unit(office, "ann")
    ann.join()
    backup = office.back_up()
    office.revoke("ann")
    office.retained.clear()
    keys = sorted(path.name for path in (office.state / "keys").glob("group-*"))
    office.restore(backup)
    assert office.members.is_behind
    with pytest.raises(Refused, match="version 3 of the roster is not complete"):
        office.members.check_complete()
    assert set(keys) <= {path.name for path in (office.state / "keys").glob("group-*")}, "the newest group key stays"
