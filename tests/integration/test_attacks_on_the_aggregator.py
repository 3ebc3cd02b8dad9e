"""What an attacker says to the aggregator: believed where the defence is switched off, refused where it is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from helpers.arena import Arena
from helpers.attacker import downgraded
from helpers.enrolment import OPERATOR, REVOKED
from helpers.federation import LINEAGE, NAME
from helpers.proxy import PASS, Message, Verdict

from floe.documents import RosterCommand
from floe.messages import Command, Round, Status, Want
from floe.topics import DeviceStatus, DeviceWant, OperatorCommand, OperatorRoster, Topic

both = pytest.mark.parametrize("defended", [False, True])
Said = tuple[Topic, bytes]


def is_offline(arena: Arena) -> bool:
    return bool(arena.federation.query("SELECT * FROM devices WHERE device = 'a' AND state = 'offline'"))


def last_seq(arena: Arena) -> int:
    return arena.read(Status, "/device/a/status", "a").seq


def for_another(arena: Arena) -> Said:
    """Member c, with its own key, says that a has gone."""
    payload = arena.attacker("c", "c").sign(Status, sender="a", seq=last_seq(arena), state="offline")
    return DeviceStatus(NAME, "a"), payload


def altered(arena: Arena) -> Said:
    """What a itself has said last, with one word changed on the way."""
    payload = arena.newest("/device/a/status", "a").payload
    state = f'"state":"{json.loads(payload)["state"]}"'
    return DeviceStatus(NAME, "a"), payload.replace(state.encode(), b'"state":"offline"')


def elsewhere(arena: Arena) -> Said:
    """What a has said in another federation, where it has the same key."""
    payload = arena.attacker("a", "a").sign(Status, federation="other", seq=last_seq(arena), state="offline")
    return DeviceStatus(NAME, "a"), payload


def again(arena: Arena) -> Said:
    """What a has said a session ago."""
    return DeviceStatus(NAME, "a"), arena.attacker("a", "a").sign(Status, seq=1, state="offline")


@dataclass(frozen=True)
class Case:
    """What is said, the defence against it, and the reason under which it is counted ("": it is passed over)."""

    say: Callable[[Arena], Said]
    defence: str
    reason: str


STATUSES = {
    "by another device": Case(for_another, "member", "unknown-key"),
    "altered on its way": Case(altered, "signature", "signature"),
    "of another federation": Case(elsewhere, "federation", "not-for-us"),
    "played again": Case(again, "status-order", ""),
}


@both
@pytest.mark.parametrize("case", STATUSES)
def test_attack_a_status_that_is_not_its_own_takes_no_device_offline(arena: Arena, case: str) -> None:
    say, defence, reason = STATUSES[case].say, STATUSES[case].defence, STATUSES[case].reason
    right = arena.newest("/device/a/status", "a").payload
    counted = arena.counted("a", reason or "malformed")
    with arena.without(defence):
        topic, payload = say(arena)
        arena.proxy.say(LINEAGE, str(topic), payload)
        if not reason:  # what comes after it is refused, and counted
            arena.proxy.say(LINEAGE, str(topic), right.replace(b'"status"', b'"want"'))
        arena.judge(succeeded=lambda: is_offline(arena), refused=counted)
    arena.proxy.say(LINEAGE, str(topic), right)
    arena.federation.wait(lambda: not is_offline(arena), "a was to be there again")


@both
def test_attack_who_was_never_enrolled_is_served_no_model(arena: Arena) -> None:
    base = json.loads(arena.newest("/main/round").payload)["base"]
    want = arena.attacker("eve").sign(Want, to=LINEAGE, transfer=base["transfer"], ranges=((0, 1),))
    counted = arena.counted("", "not-enrolled")
    with arena.without("member"):
        arena.proxy.say(LINEAGE, str(DeviceWant(NAME, "eve", LINEAGE)), want)
        arena.judge(
            succeeded=lambda: any("/to/eve/" in m.topic and "/chunk/" in m.topic for m in arena.proxy.kept),
            refused=counted,
        )


@both
@pytest.mark.parametrize(("name", "keys", "reason"), [
    ("eve", "", "not-enrolled"), (REVOKED, REVOKED, "revoked"), ("c", REVOKED, "unknown-key"),
])  # fmt: skip
def test_attack_an_update_of_who_may_not_send_one(arena: Arena, name: str, keys: str, reason: str) -> None:
    """Somebody who was never enrolled, somebody who has been revoked, and the same under the name of a member."""
    attacker = arena.attacker(name, keys)
    counted = arena.counted("" if name == "eve" else name, reason)
    with arena.without("member"), arena.round(hold="b") as number:
        answer = attacker.deliver(attacker.update(number))
        arena.judge(
            succeeded=lambda: arena.accepted(name, number),
            refused=lambda: counted() and (answer["outcome"], answer["reason"]) == ("rejected", reason),
        )
    assert arena.accepted("a", number)
    assert arena.accepted("b", number)


@both
@pytest.mark.parametrize("how", ["plaintext", "fernet", "shared", "none"])
def test_attack_an_update_that_is_not_sealed_as_all_must_be(arena: Arena, how: str) -> None:
    """A downgrade that a message would choose: member c, with the right key, by another suite or under another wrap."""
    attacker = arena.attacker("c", "c")
    weak = downgraded(attacker.keyring(), how)
    counted = arena.counted("c", "suite")
    with arena.without("suite"), arena.round(hold="b") as number:
        answer = attacker.deliver(attacker.update(number, weak), weak)
        arena.judge(
            succeeded=lambda: arena.accepted("c", number),
            refused=lambda: counted() and (answer["outcome"], answer["reason"]) == ("rejected", "suite"),
        )


@both
@pytest.mark.parametrize("how", ["altered", "truncated", "of another transfer"])
def test_attack_a_chunk_that_is_not_as_it_was_sealed(arena: Arena, how: str) -> None:
    """Every chunk of a's update is changed on its way: without the checks on chunks they are taken as they come."""

    def change(message: Message) -> Verdict:
        if not (message.upward and message.client == "a" and "/chunk/" in message.topic):
            return PASS
        payload = message.payload
        if how == "altered":
            return Verdict(payload=payload[:-20] + bytes([payload[-20] ^ 1]) + payload[-19:])
        return Verdict(payload=payload[:-20] if how == "truncated" else other)

    other = arena.newest("/0", "b").payload
    counted = arena.counted("a", "chunk")
    with arena.without("chunks"), arena.round(hold="a") as number:
        arena.proxy.rule = change
        arena.release("a", number)
        arena.judge(succeeded=lambda: arena.ended("a", number), refused=counted)
        arena.proxy.rule = lambda message: PASS


@both
def test_attack_an_altered_manifest(arena: Arena) -> None:
    """The version of the roster that a names in its manifest is another on the way."""

    def change(message: Message) -> Verdict:
        if message.client == "a" and message.upward and message.topic.endswith("/manifest"):
            return Verdict(payload=re.sub(rb'"roster":\d+', b'"roster":1', message.payload))
        return PASS

    counted = arena.counted("a", "signature")
    with arena.without("signature"):
        arena.proxy.rule = change
        with arena.round() as number:
            arena.judge(succeeded=lambda: arena.accepted("a", number), refused=counted)
            arena.proxy.rule = lambda message: PASS


@both
def test_attack_a_message_of_one_device_on_the_topic_of_another(arena: Arena) -> None:
    """c's manifest comes as if a had published it."""
    attacker = arena.attacker("c", "c")
    counted = arena.counted("a", "not-for-us")
    with arena.without("sender"), arena.round(hold="b") as number:
        parcel = attacker.update(number)
        attacker.announce(parcel, place="a")
        arena.judge(succeeded=lambda: arena.asked(parcel.name), refused=counted)


@both
def test_attack_an_update_that_was_held_back_until_another_round(arena: Arena) -> None:
    """What c made of an older model comes when a newer one is trained: signed by c, and never taken before."""
    attacker = arena.attacker("c", "c")
    counted = arena.counted("c", "round")
    with arena.round(hold="b") as number:
        held = attacker.update(number)
    with arena.without("phase", "stale"), arena.round(hold="b"):
        answer = attacker.deliver(held)
        arena.judge(
            succeeded=lambda: arena.accepted("c", number),
            refused=lambda: counted() and (answer["outcome"], answer["reason"]) == ("late", "round"),
        )


@both
def test_attack_a_roster_command_by_somebody_who_is_no_operator(arena: Arena) -> None:
    """Member c, under the operator's name, with a key of its own, invites whom it likes."""
    attacker = arena.attacker(OPERATOR, "c")
    payload = attacker.sign(RosterCommand, to=LINEAGE, action="invite", token="ab" * 32, until=2**40)
    refused = arena.told(f"/to/{OPERATOR}/roster", "with this key is not in delegation 1")
    with arena.without("operator"):
        arena.proxy.say(LINEAGE, str(OperatorRoster(NAME, OPERATOR, LINEAGE)), payload)
        arena.judge(
            succeeded=lambda: arena.federation.query("SELECT * FROM invitations WHERE token = ?", "ab" * 32),
            refused=refused,
        )


@both
def test_attack_an_order_to_the_rounds_by_somebody_who_is_no_operator(arena: Arena) -> None:
    number = arena.read(Round, "/main/round").phase.round + 1
    payload = arena.attacker(OPERATOR, "c").sign(Command, to=LINEAGE, action="start", rounds=1)
    refused = arena.told(f"/to/{OPERATOR}/reply", "with this key is no operator here")
    with arena.without("steersman"):
        arena.proxy.say(LINEAGE, str(OperatorCommand(NAME, OPERATOR, LINEAGE)), payload)
        arena.judge(
            succeeded=lambda: arena.accepted("a", number),
            refused=refused,
        )
