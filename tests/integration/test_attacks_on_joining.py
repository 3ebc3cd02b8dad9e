"""Invitations that were stolen, used up or are over, and replies that no aggregator has given to this request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.arena import Arena, arena_on
from helpers.attacker import Attacker
from helpers.enrolment import OPERATOR, Enrolled
from helpers.federation import LINEAGE, NAME
from helpers.proxy import DROP, PASS, Message, Verdict

from floe.documents import Join, JoinReply, JoinRequest, Keys, RosterCommand, RosterReply
from floe.joincode import read_code
from floe.roster import seal_join
from floe.signing import from_text, verify
from floe.store import FILE, open_log
from floe.topics import DeviceJoin, JoinReplyTo, RosterReplyTo

both = pytest.mark.parametrize("defended", [False, True])


@pytest.fixture(scope="module")
def desks(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], Arena]]:
    made: dict[bool, Arena] = {}
    with ExitStack() as stack:

        def desk(defended: bool) -> Arena:
            if defended not in made:
                folder = tmp_path_factory.mktemp("desk")
                made[defended] = stack.enter_context(arena_on(folder, template, defended=defended))
                made[defended].aggregator()
            return made[defended]

        yield desk


@pytest.fixture
def desk(desks: Callable[[bool], Arena], defended: bool) -> Arena:
    """An aggregator at which one may ask to join."""
    return desks(defended)


def federation_of(desk: Arena) -> Enrolled:
    assert isinstance(desk.federation, Enrolled)
    return desk.federation


def ask(thief: Attacker, code: str) -> None:
    """Ask to join with somebody's code, under one's own keys."""
    found = read_code(code)
    nonce = os.urandom(16).hex()
    join = Join(nonce, Keys(thief.identity.key, found.sealing, ("chacha20-poly1305",)), found.token)
    sealed = seal_join(join, NAME, LINEAGE, thief.name, found.sealing)
    topic = DeviceJoin(NAME, thief.name, LINEAGE)
    thief.tell(LINEAGE, topic, thief.sign(JoinRequest, to=LINEAGE, sealed=sealed))


def pending(desk: Arena, thief: Attacker) -> Callable[[], bool]:
    """Whether an operator would be asked about the thief's keys."""
    sql = "SELECT * FROM requests WHERE device = ? AND state = 'pending' AND keys LIKE ?"
    return lambda: bool(desk.federation.query(sql, thief.name, f"%{thief.identity.key}%"))


@both
def test_attack_an_invitation_that_was_used_already(desk: Arena) -> None:
    """d has asked with its code; a thief who has read it over the shoulder would take d's place."""
    code = federation_of(desk).invite("d")
    federation_of(desk).order("join", code, "--id", "d", "--no-wait")
    thief = desk.attacker("d")
    refused = desk.told("/to/d/join", "used by somebody else")
    with desk.without("invitation-used", "one-request"):
        ask(thief, code)
        desk.judge(succeeded=pending(desk, thief), refused=refused)


@both
def test_attack_another_invitation_in_the_place_of_who_waits(desk: Arena) -> None:
    """k waits to be compared; a thief with an open invitation of its own would stand there instead, or draw numbers
    until one is k's.
    """
    federation = federation_of(desk)
    federation.order("join", federation.invite("k"), "--id", "k", "--no-wait")
    thief = desk.attacker("k")
    code = federation.invite("k")
    refused = desk.told("/to/k/join", "another key has asked under this name")
    with desk.without("one-request"):
        ask(thief, code)
        desk.judge(succeeded=pending(desk, thief), refused=refused)


@both
def test_attack_an_invitation_that_another_uses_first(desk: Arena) -> None:
    """The thief is quicker: its number is not the one that the operator is told from e, and e learns of it."""
    federation = federation_of(desk)
    code = federation.invite("e")
    thief = desk.attacker("e")
    ask(thief, code)
    desk.federation.wait(pending(desk, thief), "the thief was to have asked")
    said = federation.order("join", code, "--id", "e", code=5)
    assert "this invitation has been used by somebody else; if that was not you, tell the operator" in said
    with desk.without("number"):
        approve = federation.start("approve-e", "devices", "approve", "e", "--number", "12345x", by=desk.by)
        desk.judge(
            succeeded=lambda: "e approved" in approve.said(),
            refused=lambda: approve.wait() == 1 and "Somebody else may ask in its place" in approve.said(),
        )


@both
def test_attack_an_invitation_that_has_expired(desk: Arena) -> None:
    code = federation_of(desk).invite("f")
    db = open_log(desk.folder / "log" / FILE)
    db.execute("UPDATE invitations SET until = 1 WHERE device = 'f'")
    db.close()
    thief = desk.attacker("f")
    refused = desk.told("/to/f/join", "has expired")
    with desk.without("invitation-time"):
        ask(thief, code)
        desk.judge(succeeded=pending(desk, thief), refused=refused)


@both
def test_attack_an_invitation_for_another_name(desk: Arena) -> None:
    code = federation_of(desk).invite("g")
    thief = desk.attacker("gg")
    refused = desk.told("/to/gg/join", "is for device 'g'")
    with desk.without("invitation-name"):
        ask(thief, code)
        desk.judge(succeeded=pending(desk, thief), refused=refused)


@both
def test_attack_a_reply_to_who_joins_that_is_not_the_aggregators(desk: Arena) -> None:
    """Member c turns h away; the nonce it has from the aggregator's own reply."""
    federation = federation_of(desk)
    joining = federation.start("join-h", "join", federation.invite("h"), "--id", "h", by=desk.by)
    right = verify(desk.newest("/to/h/join").payload, JoinReply)
    attacker = desk.attacker(LINEAGE, "c")
    forged = attacker.sign(
        JoinReply, to="h", to_key=right.to_key, nonce=right.nonce, challenge="", state="rejected", version=6,
    )  # fmt: skip
    with desk.without("aggregator"):
        desk.federation.wait(lambda: "number" in joining.said(), "h was to show its number")
        attacker.tell("h", JoinReplyTo(NAME, LINEAGE, "h"), forged)
        desk.judge(
            succeeded=lambda: not joining.running and "rejected" in joining.said(),
            refused=lambda: "/to/h/join: unknown-key" in joining.said(),
        )
    joining.terminate()


@both
def test_attack_a_rejection_of_an_earlier_request(desk: Arena) -> None:
    """The operator has turned i away once, and invites it again; the broker plays the first rejection."""
    federation = federation_of(desk)
    federation.order("join", federation.invite("i"), "--id", "i", "--no-wait")
    federation.order("devices", "reject", "i")
    old = desk.heard(lambda m: m.upward and m.topic.endswith("/to/i/join") and b'"rejected"' in m.payload)
    code = federation.invite("i")
    with desk.without("nonce"):
        joining = federation.start("join-i", "join", code, "--id", "i", by=desk.by)
        desk.federation.wait(lambda: "number" in joining.said(), "i was to show its number")
        desk.proxy.say("i", old.topic, old.payload)
        desk.proxy.say("i", old.topic, b"something that is refused, and comes after it")
        desk.judge(
            succeeded=lambda: not joining.running and "has been rejected" in joining.said(),
            refused=lambda: "/to/i/join: signature" in joining.said(),
        )
    joining.terminate()


@both
def test_attack_the_token_of_an_invitation_read_from_the_wire(desk: Arena) -> None:
    """Whoever listens sees requests go by, and would use their tokens first, by holding them back."""
    federation = federation_of(desk)
    code = federation.invite("j")
    with desk.without("join-sealing", "join-opening"):
        federation.order("join", code, "--id", "j", "--no-wait", by=desk.by)
        request = verify(desk.newest(f"/device/j/{LINEAGE}/join", "j").payload, JoinRequest)
        found = read_code(code).token.encode() in from_text(request.sealed)
        desk.judge(succeeded=lambda: found, refused=lambda: not found)


@both
def test_attack_a_reply_to_the_operator_that_is_not_the_aggregators(desk: Arena) -> None:
    """The broker keeps the operator's question to itself, and member c answers it: nobody is there."""
    federation, attacker = federation_of(desk), desk.attacker(LINEAGE, "c")
    head = federation.roster("a").text

    def answer(message: Message) -> Verdict:
        if not (message.upward and message.topic.endswith(f"/{LINEAGE}/roster") and "/operator/" in message.topic):
            return PASS
        asked = verify(message.payload, RosterCommand)
        reply = attacker.sign(
            RosterReply, to=OPERATOR, to_key=asked.key, command=asked.seq, done=True, detail="", head=head,
        )  # fmt: skip
        attacker.tell(OPERATOR, RosterReplyTo(NAME, LINEAGE, OPERATOR), reply)
        return DROP

    with desk.without("reply"):
        desk.proxy.rule = answer
        listing = federation.start("list", "devices", "list", "--reply", "3", by=desk.by)
        desk.judge(
            succeeded=lambda: "no devices yet" in listing.said(),
            refused=lambda: f"/to/{OPERATOR}/roster: unknown-key" in listing.said(),
        )
    assert listing.wait() == 0, "the aggregator's own reply was to be taken, once it came"
