"""What a device keeps of the roster: nothing older comes after it, also after a restart; only what is for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.damage import DAMAGE, content_of
from helpers.office import FEDERATION, HEAD, LINEAGE, Office, Unit
from helpers.wire import EVE

from edge_client.membership import Membership
from floe.documents import Card, Entry
from floe.errors import Refused, StoreError
from floe.identity import Identity
from floe.messages import Status
from floe.own_keys import load_next, take_next
from floe.roster import Anchor, read_head
from floe.sign_roster import next_head
from floe.signing import verify


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def ann(office: Office) -> Unit:
    unit = Unit(office, "ann")
    unit.join()
    return unit


def entry_with(office: Office, ann: Unit, by: Identity | None = None, **changes: Any) -> bytes:
    assert ann.entry is not None
    by, entry = by or office.identity, verify(ann.entry, Entry)
    return by.sign(msgspec.structs.replace(entry, **{"key": by.key, "seq": entry.seq + 1, **changes}))


def state_of(unit: Unit) -> object:
    membership = unit.membership
    return (membership.roster, membership.entry, membership.card, repr(membership.ring), unit.approved)


def refused(unit: Unit, action: Callable[[], object], reason: str, detail: str) -> None:
    """And nothing has changed, now or after a restart."""
    before = state_of(unit)
    with pytest.raises(Refused, match=detail) as refusal:
        action()
    assert refusal.value.reason == reason
    assert state_of(unit) == before
    unit.start()
    assert state_of(unit) == before


def test_head_and_entry_are_news_once_and_stay_over_a_restart(office: Office, ann: Unit) -> None:
    assert ann.entry is not None
    assert not ann.membership.on_head(office.retained[HEAD])
    assert not ann.membership.on_entry(ann.entry)
    ring = ann.membership.ring
    assert (ring.version, ring.group, ring.group_key) == (2, 1, office.ring.group_key)
    assert ring.recipients == {LINEAGE: office.aggregator().sealing}
    before = state_of(ann)
    ann.start()
    assert state_of(ann) == before
    assert ann.approved
    assert ann.membership.epoch == 1


def test_an_older_head_is_refused_also_after_a_restart(office: Office, ann: Unit) -> None:
    older = office.retained[HEAD]
    Unit(office, "bob").join()
    ann.hear()
    for _ in range(2):
        refused(ann, lambda: ann.membership.on_head(older), "roster", "goes back behind version 3")
    other = next_head(read_head(older.decode(), office.anchor), office.operator, 2500).head
    refused(ann, lambda: ann.membership.on_head(other.encode()), "roster", "another version 3")


def test_a_head_of_another_root_or_without_our_aggregator_is_refused(office: Office, ann: Unit, tmp_path: Path) -> None:
    foreign = Office(tmp_path / "foreign")
    refused(ann, lambda: ann.membership.on_head(foreign.retained.get(HEAD) or foreign.roster.text.encode()),
            "unknown-key", "not signed by the root")  # fmt: skip
    foreign.stop()
    moved = (msgspec.structs.replace(office.aggregator(), lineage="other"),)
    without = next_head(office.roster, office.operator, 3000, aggregators=moved)
    refused(ann, lambda: ann.membership.on_head(without.head.encode()), "not-enrolled", "no aggregator 'main'")
    refused(ann, lambda: ann.membership.on_head(b"\xff\xfe"), "signature", "no signature")


def test_a_version_that_was_promised_is_waited_for(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.ask(office.invite())
    office.approve("ann")
    old_head, old_entry = office.retained[HEAD], ann.entry
    office.revoke("ann")
    ann.membership.expect(3)
    ann.membership.expect(1)
    refused(ann, lambda: ann.membership.on_head(old_head), "roster", "version 2; the roster is at 3 at least")
    assert old_entry is not None
    refused(ann, lambda: ann.membership.on_entry(old_entry), "roster", "no head of the roster has come yet")
    ann.hear()
    assert ann.membership.is_revoked


def test_who_knows_of_a_newer_version_is_approved_by_that_one_only(office: Office, ann: Unit) -> None:
    ann.membership.expect(3)
    assert not ann.approved
    ann.start()
    assert not ann.approved
    Unit(office, "bob").join()
    ann.hear()
    assert ann.approved


def test_an_older_entry_is_refused_also_after_a_restart(office: Office, ann: Unit) -> None:
    older = ann.entry
    assert older is not None
    office.order("rotate", name="ann")
    ann.hear()
    for _ in range(2):
        refused(ann, lambda: ann.membership.on_entry(older), "roster", "an older entry")
    Unit(office, "bob").join()
    office.revoke("bob")
    ann.hear()
    group = entry_with(office, ann, group=1)
    refused(ann, lambda: ann.membership.on_entry(group), "roster", "an older entry")


def test_an_older_card_is_refused_and_one_of_a_version_that_is_not_here_yet(office: Office, ann: Unit) -> None:
    assert ann.membership.card is not None
    older = verify(ann.entry or b"", Entry).card
    office.revoke("ann")
    ann.hear()
    refused(ann, lambda: ann.membership.on_entry(entry_with(office, ann, card=older)), "roster", "an older card")
    card = verify(older.encode(), Card)
    later = office.operator.sign(msgspec.structs.replace(card, seq=9)).decode()
    refused(ann, lambda: ann.membership.on_entry(entry_with(office, ann, card=later)), "roster", "a card of version 9")


def test_an_entry_for_another_or_by_another_is_refused(office: Office, ann: Unit) -> None:
    bob = Unit(office, "bob")
    bob.join()
    ann.hear()
    assert bob.entry is not None
    for payload, reason, detail in (
        (bob.entry, "not-for-us", "an entry of 'bob' by 'main'"),
        (entry_with(office, ann, card=verify(bob.entry, Entry).card), "not-for-us", "the card of 'bob'"),
        (entry_with(office, ann, federation="other"), "not-for-us", "an entry of 'ann'"),
        (entry_with(office, ann, sender="other"), "not-for-us", "an entry of 'ann' by 'other'"),
        (entry_with(office, ann, by=EVE), "unknown-key", "not the key of 'main'"),
        (entry_with(office, ann, by=office.operator), "unknown-key", "not the key of 'main'"),
        (entry_with(office, ann, group_key=verify(bob.entry, Entry).group_key), "unsealing", "unsealing"),
        (b"{}", "signature", "no signature"),
    ):
        refused(ann, lambda payload=payload: ann.membership.on_entry(payload), reason, detail)  # type: ignore[misc]


def test_an_entry_for_other_keys_does_not_open_and_after_the_change_of_keys_older_ones_are_not_believed(
    office: Office, ann: Unit
) -> None:
    office.revoke("ann")
    revoked = ann.entry
    assert revoked is not None
    ann.ask(office.invite(), nonce="0" * 32)
    office.approve("ann")
    ann.hear()
    following = load_next(ann.state, "ann")
    ann.ask(keys=following, endorsement=ann.endorsement(following))
    office.approve("ann")
    with pytest.raises(Refused, match="unsealing"):
        ann.hear()
    take_next(ann.state, ann.name)
    ann.start()
    assert not ann.approved
    assert ann.membership.ring.group_key == b""
    refused(ann, lambda: ann.membership.on_entry(revoked), "roster", "an older entry")
    assert not ann.membership.is_revoked
    ann.hear()
    assert ann.approved
    assert ann.membership.ring.group_key == office.ring.group_key


def test_an_aggregator_that_lost_count_is_believed_in_the_next_epoch_only(office: Office, ann: Unit) -> None:
    """It was restored from a backup, and the broker has lost what it had said: it counts from where the backup was."""
    lower = entry_with(office, ann, seq=1, rotate=True)
    refused(ann, lambda: ann.membership.on_entry(lower), "roster", "an older entry")
    office.order("change", head=next_head(office.roster, office.operator, 3000,
                                          aggregators=(office.aggregator(epoch=2),)).head)  # fmt: skip
    ann.membership.on_head(office.retained[HEAD])
    ann.start()
    assert ann.membership.epoch == 2
    assert ann.membership.on_entry(lower)
    ann.start()
    assert ann.membership.entry is not None
    assert ann.membership.entry.rotate
    refused(ann, lambda: ann.membership.on_entry(entry_with(office, ann, seq=0)), "roster", "an older entry")


def test_what_another_key_says_in_the_aggregator_s_name_is_refused(office: Office, ann: Unit) -> None:
    def said(key: str) -> Status:
        return Status(federation=FEDERATION, sender=LINEAGE, key=key, proof="", seq=1, state="online")

    ann.membership.check_key(said(office.identity.key))
    with pytest.raises(Refused, match="unknown-key: not the key of 'main' in version 2"):
        ann.membership.check_key(said(EVE.key))
    with pytest.raises(Refused, match="roster: no head of the roster has come yet"):
        Unit(office, "bob").membership.check_key(said(office.identity.key))


def test_a_revoked_device_knows_it_after_a_restart_and_has_no_group_key(office: Office, ann: Unit) -> None:
    office.revoke("ann")
    ann.hear()
    ann.start()
    assert ann.membership.is_revoked
    assert not ann.approved
    assert ann.membership.ring.group_key == b""


def test_what_is_kept_of_one_lineage_is_nothing_for_another(office: Office, ann: Unit) -> None:
    other = Membership(ann.state, office.anchor, "ann", "other", ann.keys.sealing)
    assert other.entry is None
    assert other.epoch == 0


@pytest.mark.parametrize("damage", [*DAMAGE, "least", "epoch", "another root"])
def test_a_damaged_file_is_named_and_left_and_may_be_removed(office: Office, ann: Unit, damage: str) -> None:
    path = ann.state / "roster.json"
    if damage in ("least", "epoch"):
        path.write_bytes(path.read_bytes().replace(f'"{damage}":'.encode(), f'"{damage}":1'.encode()))
    elif damage == "another root":
        office.anchor = Anchor(FEDERATION, EVE.key)
    else:
        DAMAGE[damage](path)
    before = content_of(path)
    with pytest.raises(StoreError, match=r"roster\.json: damaged \(.*\); restore it, or remove it"):
        ann.start()
    assert content_of(path) == before


def test_a_file_that_was_removed_is_fetched_again(office: Office, ann: Unit) -> None:
    (ann.state / "roster.json").unlink()
    ann.start()
    assert not ann.approved
    ann.hear()
    assert ann.approved
