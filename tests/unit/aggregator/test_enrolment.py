"""Who asks to join, with which invitation, and what operators see and order of it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from helpers.office import UNTIL, Office, Unit, received
from helpers.wire import EVE

from aggregator import enrolment
from floe.documents import PAGE, Join, JoinReply, Keys, Member
from floe.errors import Refused
from floe.hpke import sealing_text
from floe.messages import MAX_MESSAGE_BYTES
from floe.own_keys import OwnKeys, load_keys, load_next
from floe.roster import number_of, seal_join
from floe.sign_roster import next_head, number
from floe.topics import DeviceJoin


@pytest.fixture
def now() -> list[float]:
    return [3000.0]


@pytest.fixture
def office(tmp_path: Path, now: list[float]) -> Iterator[Office]:
    made = Office(tmp_path, clock=lambda: now[0])
    yield made
    made.stop()


def answered(office: Office, unit: Unit, token: str = "", **join: str) -> JoinReply:
    """As `unit.ask`, at the time of the office's clock."""
    fields = office.enrolment.request(unit.request(token, **join))
    return JoinReply(
        **{"federation": "floe", "sender": "main", "key": office.identity.key, "proof": "", "seq": 1}, **fields
    )


def device_state(office: Office, name: str) -> str | None:
    row = office.log.db.execute("SELECT state FROM devices WHERE device = ?", [name]).fetchone()
    return row and row[0]


def test_who_asks_waits_visibly_with_the_number_that_the_device_shows(office: Office) -> None:
    ann = Unit(office, "ann")
    reply = ann.ask(office.invite("ann"))
    assert (reply.state, reply.to, reply.to_key, reply.nonce) == ("pending", "ann", ann.public.signing, ann.nonce)
    shown = office.order("show", name="ann").members[0]
    assert (shown.state, shown.keys, device_state(office, "ann")) == ("pending", ann.public, "unverified")
    assert number("floe", shown) == number_of("floe", "ann", ann.public, ann.nonce, reply.challenge)


def test_the_same_request_has_the_same_number_again_also_after_a_restart(office: Office) -> None:
    ann = Unit(office, "ann")
    token = office.invite()
    first = ann.ask(token)
    assert ann.ask(token).challenge == first.challenge
    assert ann.ask().challenge == first.challenge, "the token was for the first time"
    office.restart()
    assert ann.ask(token).challenge == first.challenge


def test_the_challenge_is_not_known_before_the_keys_are(office: Office) -> None:
    units = [Unit(office, f"d{index}") for index in range(5)]
    assert len({unit.ask(office.invite()).challenge for unit in units}) == 5


def test_no_invitation_draws_a_second_number_for_a_key(office: Office) -> None:
    """A thief of an invitation would draw until the number is the one that the operator was told."""
    ann, token = Unit(office, "ann"), office.invite()
    first = ann.ask(token)
    before = office.log.db.execute("SELECT * FROM requests").fetchall()
    other = OwnKeys(ann.keys.identity, Unit(office, "eve").keys.sealing)
    for again in ({"nonce": "0" * 32}, {"keys": other}, {"keys": other, "nonce": "0" * 32}):
        assert ann.ask(**again).state == "refused"
        for code in (token, office.invite()):
            reply = ann.ask(code, **again)
            assert (reply.state, reply.challenge) == ("refused", "")
            assert "this device has asked already" in reply.detail
            assert "`floe devices reject ann`" in reply.detail
    assert office.log.db.execute("SELECT * FROM requests").fetchall() == before
    assert ann.ask(token).challenge == first.challenge
    assert office.order("reject", name="ann", request=ann.nonce).done
    assert ann.ask(token, nonce="0" * 32).state == "refused", "what was decided upon has no second number"
    assert ann.ask(office.invite(), nonce="0" * 32).state == "pending", "nobody is locked out for ever"


def test_nobody_takes_the_place_of_another_key_that_waits(office: Office) -> None:
    ann, eve = Unit(office, "ann"), Unit(office, "ann")
    eve.state = office.folder / "eve"
    eve.start()
    first = ann.ask(token := office.invite())
    assert eve.ask(token, nonce=ann.nonce).state == "refused"
    reply = eve.ask(second := office.invite())
    assert (reply.state, "another key has asked under this name" in reply.detail) == ("refused", True)
    assert "`floe devices reject ann`" in reply.detail
    assert office.order("show", name="ann").members[0].keys == ann.public
    assert office.order("reject", name="ann", request=ann.nonce).done
    other = eve.ask(second, nonce=ann.nonce)
    assert other.state == "pending", "the name is free, and its invitation was not used up"
    assert office.order("show", name="ann").members[0].keys == eve.public
    assert other.challenge != first.challenge


def test_other_keys_that_wait_give_way_to_nobody_s_and_have_no_second_challenge(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    following = load_next(ann.state, "ann")
    endorsement = ann.endorsement(following)
    first = ann.ask(keys=following, endorsement=endorsement)
    again = ann.ask(keys=following, endorsement=endorsement, nonce="0" * 32)
    assert (again.state, again.nonce, again.challenge) == ("pending", "0" * 32, first.challenge), "it began again"
    third = load_keys(office.folder / "eve", "ann")
    for wrong in (
        ann.ask(keys=third, endorsement=ann.endorsement(third)),
        ann.ask(office.invite(), keys=third),
        ann.ask(office.invite(), keys=following),
    ):
        assert (wrong.state, "an operator decides upon that first" in wrong.detail) == ("refused", True)
    shown = office.order("show", name="ann").members[0]
    assert (shown.state, shown.keys, shown.nonce) == ("rotating", following.public(ann.public.suites), "0" * 32)


def test_no_number_is_compared_whose_challenge_was_known_before(office: Office) -> None:
    """A request that waits, to be compared, does not become a rotation, with the challenge that it has; nor does one
    of a name that is free again keep it.
    """
    ann = Unit(office, "ann")
    ann.join()
    following = load_next(ann.state, "ann")
    first = ann.ask(office.invite(), keys=following)
    assert ann.ask(keys=following, endorsement=ann.endorsement(following), nonce="0" * 32).state == "refused"
    assert office.order("reject", name="ann", request=ann.nonce).done
    assert ann.ask(office.invite(), keys=following, nonce="0" * 32).challenge not in ("", first.challenge)


Wrong = Callable[[Office, Unit, list[float]], str]
WRONG_TOKENS: dict[str, tuple[Wrong, str]] = {
    "none": (lambda office, unit, now: "", "no such invitation"),
    "made up": (lambda office, unit, now: secrets.token_hex(16), "no such invitation"),
    "for another": (lambda office, unit, now: office.invite("bob"), "is for device 'bob': join with --id bob"),
    "used by another": (lambda office, unit, now: used(office), "used by somebody else"),
    "decided upon": (lambda office, unit, now: rejected(office, unit), "has been decided upon already"),
    "expired": (lambda office, unit, now: expired(office, now), "has expired"),
}


def used(office: Office) -> str:
    token = office.invite()
    assert Unit(office, "bob").ask(token).state == "pending"
    return token


def rejected(office: Office, unit: Unit) -> str:
    """By the device's own key, for an earlier request."""
    unit.ask(token := office.invite(), nonce="0" * 32)
    assert office.order("reject", name="ann", request="0" * 32).done
    return token


def expired(office: Office, now: list[float]) -> str:
    """It is over by the office's clock; a second one made since has not swept it away."""
    token = secrets.token_hex(16)
    digest = hashlib.sha256(bytes.fromhex(token)).hexdigest()
    assert office.order("invite", token=digest, until=UNTIL - 1).done
    now[0] = UNTIL
    return token


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
def test_a_wrong_invitation_is_refused_with_the_reason_and_leaves_no_request(
    office: Office, now: list[float], wrong: str
) -> None:
    make, detail = WRONG_TOKENS[wrong]
    ann = Unit(office, "ann")
    token = make(office, ann, now)
    before = office.log.db.execute("SELECT * FROM requests").fetchall()
    reply = answered(office, ann, token)
    assert (reply.state, reply.challenge, reply.nonce) == ("refused", "", ann.nonce)
    assert detail in reply.detail
    assert office.log.db.execute("SELECT * FROM requests").fetchall() == before
    assert ("", "not-enrolled", 1) in _refusals(office) or ("ann", "not-enrolled", 1) in _refusals(office)


def _refusals(office: Office) -> list[tuple[str, str, int]]:
    office.log.flush(10.0**9)
    return office.log.db.execute("SELECT device, reason, count FROM refusals").fetchall()


def test_an_invitation_for_any_device_is_for_one_name(office: Office) -> None:
    """Otherwise one key could ask under a million names."""
    ann, token = Unit(office, "ann"), office.invite()
    assert ann.ask(token).state == "pending"
    other = Unit(office, "bob")
    reply = other.ask(token, keys=ann.keys)
    assert reply.state == "refused"
    assert "for device 'ann'" in reply.detail


def test_a_member_that_asks_again_is_told_so_without_a_token(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    assert ann.ask().state == "approved"
    assert ann.entry is not None
    assert ann.ask(nonce="0" * 32).state == "approved"


def test_a_revoked_device_comes_back_with_a_new_invitation_only(office: Office) -> None:
    ann = Unit(office, "ann")
    token = office.invite("ann")
    ann.ask(token)
    office.approve("ann")
    office.revoke("ann")
    assert device_state(office, "ann") == "revoked"
    assert ann.ask(token).state == "refused"
    assert ann.ask().state == "refused"
    assert ann.ask(office.invite("ann")).state == "pending"
    assert device_state(office, "ann") == "revoked", "until an operator lets it in again"
    assert [member.state for member in office.order("show", name="ann").members] == ["pending", "revoked"]
    assert office.approve("ann").done
    assert device_state(office, "ann") == "unknown"
    ann.hear()
    assert ann.approved


def test_other_keys_are_taken_under_the_old_one_only(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    following = load_next(ann.state, "ann")
    eve = Unit(office, "eve")
    for wrong in (eve.endorsement(following), ann.endorsement(eve.keys), "A" * 86):
        reply = ann.ask(keys=following, endorsement=wrong)
        assert (reply.state, reply.detail) == ("refused", "the signature does not verify")
    assert office.order("show", name="ann").members[0].state == "approved"
    assert ann.ask(keys=following, endorsement=ann.endorsement(following)).state == "pending"
    assert office.order("show", name="ann").members[0].state == "rotating"


def test_no_key_vouches_for_another_but_that_of_an_approved_device(office: Office) -> None:
    ann = Unit(office, "ann")
    following = load_next(ann.state, "ann")
    endorsement = ann.endorsement(following)
    assert "no card whose key could endorse" in ann.ask(keys=following, endorsement=endorsement).detail
    ann.join()
    office.revoke("ann")
    assert "no card whose key could endorse" in ann.ask(keys=following, endorsement=endorsement).detail


def test_the_endorsement_of_one_device_is_none_for_another(office: Office) -> None:
    ann, bob = Unit(office, "ann"), Unit(office, "bob")
    ann.join()
    bob.join()
    following = load_next(ann.state, "ann")
    assert bob.ask(keys=following, endorsement=ann.endorsement(following)).state == "refused"


def test_a_request_that_is_not_sealed_to_us_or_not_by_its_own_key_has_no_answer(office: Office) -> None:
    ann, eve = Unit(office, "ann"), Unit(office, "eve")
    request = ann.request(office.invite())
    join = Join(ann.nonce, ann.public, "")
    other = seal_join(join, "floe", "main", "ann", sealing_text(eve.keys.sealing.public_key()))
    stolen = seal_join(join, "floe", "main", "ann", sealing_text(office.sealing.public_key()))
    for wrong, reason in (
        (msgspec.structs.replace(request, sealed=other), "unsealing"),
        (msgspec.structs.replace(request, sealed="A" * 100), "unsealing"),
        (msgspec.structs.replace(request, key=EVE.key, sealed=stolen), "unsealing"),
        (msgspec.structs.replace(request, sender="eve"), "unsealing"),
        (msgspec.structs.replace(request, to="other"), "not-for-us"),
    ):
        with pytest.raises(Refused) as refusal:
            office.enrolment.request(wrong)
        assert refusal.value.reason == reason
    assert office.log.db.execute("SELECT * FROM requests").fetchall() == []


def test_a_rejected_device_is_told_and_may_ask_with_a_new_invitation(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.ask(office.invite())
    assert office.order("reject", name="ann", request=ann.nonce).done
    assert device_state(office, "ann") == "rejected"
    assert ann.ask().state == "rejected"
    told = office.enrolment.rejection("ann")
    assert told == {
        "to": "ann", "to_key": ann.public.signing, "nonce": ann.nonce, "challenge": "", "state": "rejected",
        "version": 1,
    }  # fmt: skip
    assert ann.ask(office.invite(), nonce="0" * 32).state == "pending"
    assert device_state(office, "ann") == "unverified"
    assert office.enrolment.rejection("ann") is None


def test_a_rejection_is_for_the_request_that_was_seen(office: Office) -> None:
    ann = Unit(office, "ann")
    assert "has not asked" in office.order("reject", name="ann", request=ann.nonce).detail
    ann.ask(office.invite())
    assert office.order("reject", name="ann", request=ann.nonce).done
    ann.ask(office.invite(), nonce="0" * 32)
    reply = office.order("reject", name="ann", request=ann.nonce)
    assert (reply.done, "asked again since" in reply.detail) == (False, True)
    assert office.order("show", name="ann").members[0].state == "pending"


def test_a_member_whose_other_keys_were_rejected_is_a_member_in_every_list(office: Office) -> None:
    ann = Unit(office, "ann")
    ann.join()
    following = load_next(ann.state, "ann")
    ann.ask(keys=following, endorsement=ann.endorsement(following))
    assert office.order("reject", name="ann", request=ann.nonce).done
    assert device_state(office, "ann") == "unknown"
    assert [member.state for member in office.order("list").members] == ["approved"]
    assert [member.state for member in office.order("show", name="ann").members] == ["approved", "rejected"]


def test_lists_have_every_name_once_in_order_page_by_page(office: Office) -> None:
    everybody = [f"d{number:03}" for number in range(101)]
    for index, name in enumerate(everybody):
        unit = Unit(office, name)
        unit.ask(office.invite())
        if index % 3 == 0:
            office.approve(name)
        if index % 9 == 0:  # a member that asks anew: both
            unit.ask(office.invite(), nonce="0" * 32, keys=load_next(unit.state, name))
    found: list[Member] = []
    pages, more = 0, True
    while more:
        reply = office.order("list", name=found[-1].name if found else "")
        found += reply.members
        pages, more = pages + 1, reply.more
        assert len(reply.members) <= PAGE
    assert [member.name for member in found] == everybody
    assert pages == 4
    states = ["approved" if n % 3 == 0 and n % 9 else "pending" for n in range(101)]
    assert [member.state for member in found] == states
    assert office.order("list", name=everybody[-1]).members == ()


def test_a_page_of_the_largest_members_under_the_largest_head_fits_into_a_message(office: Office) -> None:
    key, keys = "A" * 392, Keys("A" * 392, "A" * 43, ("chacha20-poly1305",) * 4, "$" * 256, "A" * 512)
    for index in range(PAGE + 1):
        row = {
            "device": f"{index:064}", "nonce": "0" * 32, "keys": msgspec.json.encode(keys).decode(), "time": 2**31,
            "challenge": "0" * 32, "endorsement": "A" * 342, "state": "pending",
        }  # fmt: skip
        office.log.db.table("requests").insert(row)
    many = tuple(office.aggregator(lineage=f"{n:064}", signing=key) for n in range(63))
    grown = next_head(office.roster, office.operator, 2000, aggregators=(office.aggregator(), *many))
    assert office.order("change", head=grown.head).done
    reply = office.order("list")
    assert (len(reply.members), reply.more) == (PAGE, True)
    assert len(office.wire.sent[-1][1]) < MAX_MESSAGE_BYTES


def test_an_invitation_is_one_however_often_the_command_comes(office: Office) -> None:
    digest = hashlib.sha256(bytes(16)).hexdigest()
    for name in ("ann", "bob"):
        assert office.order("invite", token=digest, name=name, until=UNTIL).done
    assert office.log.db.execute("SELECT device FROM invitations").fetchall() == [("ann",)]
    assert Unit(office, "ann").ask("0" * 32).state == "pending"
    assert office.order("invite", token=digest, name="ann", until=UNTIL).done
    assert Unit(office, "bob").ask("0" * 32).state == "refused", "it was used"


def test_an_invitation_that_is_over_or_has_no_token_is_none(office: Office, now: list[float]) -> None:
    for fields in ({"token": "", "until": UNTIL}, {"token": "0" * 64, "until": int(now[0])}):
        with pytest.raises(Refused, match="needs a token, and a time that is not over"):
            office.enrolment.command(_command(office, **fields))


def _command(office: Office, **fields: object) -> enrolment.RosterCommand:
    return enrolment.RosterCommand(
        federation="floe", sender="opa", key=office.operator.key, proof="", seq=1, to="main", action="invite", **fields
    )


def test_so_many_invitations_are_open_and_no_more(
    office: Office, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "MOST_INVITATIONS", 3)
    for index in range(3):
        office.enrolment.command(_command(office, token=f"{index:064}", until=4000))
    with pytest.raises(Refused, match="3 invitations are open already"):
        office.enrolment.command(_command(office, token="f" * 64, until=4000))
    now[0] = 4001.0
    office.enrolment.command(_command(office, token="f" * 64, until=5000))
    assert office.log.db.execute("SELECT token FROM invitations").fetchall() == [("f" * 64,)]


@pytest.mark.parametrize("action", ["rotate", "show"])
def test_of_whom_is_not_there_nothing_is_shown_or_asked(office: Office, action: str) -> None:
    reply = office.order(action, name="nobody")
    assert reply.done == (action == "show")
    assert ("nobody here is" if action == "show" else "not an approved device") in reply.detail
    assert reply.members == ()


def test_a_revoked_device_is_not_asked_for_other_keys(office: Office) -> None:
    Unit(office, "ann").join()
    assert office.order("rotate", name="ann").done
    office.revoke("ann")
    assert not office.order("rotate", name="ann").done


def test_a_request_in_the_name_of_another_device_s_topic_is_refused(office: Office) -> None:
    ann = Unit(office, "ann")
    payload = ann.keys.identity.sign(ann.request(office.invite()))
    topic = DeviceJoin("floe", "bob", "main")
    with pytest.raises(Refused, match="speaks on the topic of 'bob'"):
        office.desk.receive(topic, received(topic, payload))
