"""What an attacker says to a device in the aggregator's name, or has it hear again: believed without the defence,
refused with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest
from helpers.arena import Arena
from helpers.attacker import Attacker, downgraded
from helpers.enrolment import Enrolled
from helpers.federation import LINEAGE, NAME
from helpers.process import Process
from helpers.proxy import DROP, PASS, Message, Verdict

from edge_client.membership import Membership
from floe import weights
from floe.errors import Refused
from floe.identity import Identity
from floe.keyring import EnrolledKeyring
from floe.messages import Answer, Core, Manifest, Round, Status, Want
from floe.own_keys import load_keys
from floe.parcel import Parcel, pack
from floe.signing import verify
from floe.topics import AggregatorStatus, AnswerTo, CurrentRound, ModelChunk, ModelManifest, Topic, WantTo
from floe.transfer import name_of

both = pytest.mark.parametrize("defended", [False, True])


def device(arena: Arena, name: str) -> Process:
    return next(process for process in arena.federation.processes if process.log.stem == name)


def in_its_name(arena: Arena) -> Attacker:
    """Member c, who knows all that members know, speaks as the aggregator."""
    return arena.attacker(LINEAGE, "c")


def newest_round(arena: Arena) -> Round:
    return arena.read(Round, "/main/round")


def forged_round(arena: Arena) -> tuple[Topic, bytes]:
    order = newest_round(arena)
    phase = msgspec.structs.replace(order.phase, round=777)
    forged = msgspec.structs.replace(order, key=in_its_name(arena).identity.key, phase=phase)
    return CurrentRound(NAME, LINEAGE), in_its_name(arena).identity.sign(forged)


def altered_round(arena: Arena) -> tuple[Topic, bytes]:
    payload = arena.newest("/main/round").payload
    number = newest_round(arena).phase.round
    return CurrentRound(NAME, LINEAGE), payload.replace(b'"round":%d' % number, b'"round":777')


def round_of_another_federation(arena: Arena) -> tuple[Topic, bytes]:
    """The same aggregator key in another federation."""
    order = newest_round(arena)
    phase = msgspec.structs.replace(order.phase, round=777)
    made = msgspec.structs.replace(order, federation="other", phase=phase)
    return CurrentRound(NAME, LINEAGE), arena.aggregator_identity.sign(made)


def old_round(arena: Arena) -> tuple[Topic, bytes]:
    """Of the first round, as the aggregator has signed it."""
    first = arena.heard(
        lambda m: m.upward and m.topic.endswith("/main/round") and verify(m.payload, Round).phase.round == 1
    )
    return CurrentRound(NAME, LINEAGE), first.payload


@dataclass(frozen=True)
class Case:
    """What a hears, without which defence it is believed, what a says then, and what it says of the refusal."""

    say: Callable[[Arena], tuple[Topic, bytes]]
    defence: str
    believed: str
    refused: str


ROUNDS = {
    "by a member": Case(forged_round, "aggregator", "round 777:", "/round: unknown-key"),
    "altered on its way": Case(altered_round, "signature", "round 777:", "/round: signature"),
    "of another federation": Case(round_of_another_federation, "federation", "round 777:", "/round: not-for-us"),
    "played again": Case(old_round, "order", "round 1: ", "/round: round: older than a round document"),
}


@both
@pytest.mark.parametrize("case", ROUNDS)
def test_attack_a_round_that_the_aggregator_does_not_ask_for(arena: Arena, case: str) -> None:
    a, made = device(arena, "a"), ROUNDS[case]
    with arena.round():
        pass
    right = arena.newest("/main/round").payload
    believed, refused = arena.said(a, made.believed), arena.said(a, made.refused)
    with arena.without(made.defence):
        topic, payload = made.say(arena)
        arena.proxy.say("a", str(topic), payload)
        arena.judge(succeeded=believed, refused=refused)
        arena.proxy.say("a", str(topic), right)


def unanswered(message: Message) -> Verdict:
    """A rule: device a hears of no answer, so its updates stay in its outbox."""
    return DROP if message.client == "a" and message.topic.endswith("/to/a/answer") else PASS


def in_the_outbox(arena: Arena) -> Core:
    """What a has sent for the newest training round, still in its outbox."""
    with arena.round() as number:
        pass
    sent = arena.heard(
        lambda m: m.client == "a" and m.topic.endswith(f"/{number}/manifest") and b'"train"' in m.payload
    )
    return verify(sent.payload, Manifest).core


@both
def test_attack_an_answer_that_the_aggregator_has_not_given(arena: Arena) -> None:
    """Member c says that a's update is refused for good: a would forget it."""
    a, attacker = device(arena, "a"), in_its_name(arena)
    arena.proxy.rule = unanswered
    core = in_the_outbox(arena)
    answer = attacker.sign(
        Answer, to="a", to_key=arena.attacker("a", "a").identity.key, transfer=name_of(core), phase=core.phase,
        outcome="rejected", reason="device", detail="says an attacker",
    )  # fmt: skip
    believed, refused = arena.said(a, "says an attacker"), arena.said(a, "/to/a/answer: unknown-key")
    with arena.without("aggregator"):
        attacker.tell("a", AnswerTo(NAME, LINEAGE, "a"), answer)
        arena.judge(succeeded=believed, refused=refused)


@both
def test_attack_a_want_that_the_aggregator_does_not_have(arena: Arena) -> None:
    """Member c has a send what it has to send, again and again."""
    a, attacker = device(arena, "a"), in_its_name(arena)
    arena.proxy.rule = unanswered
    core = in_the_outbox(arena)
    want = attacker.sign(Want, to="a", transfer=name_of(core), ranges=((0, 1),))

    def sent() -> int:
        return sum(m.client == "a" and f"/chunk/{name_of(core)}/" in m.topic for m in list(arena.proxy.kept))

    before, refused = sent(), arena.said(a, "/to/a/want: unknown-key")
    with arena.without("aggregator"):
        attacker.tell("a", WantTo(NAME, LINEAGE, "a"), want)
        arena.judge(succeeded=lambda: sent() > before, refused=refused)


@both
def test_attack_a_status_of_the_aggregator_that_is_not_its_own(arena: Arena) -> None:
    """Member c says that the aggregator has come back: the whole fleet would speak at once."""
    a, attacker = device(arena, "a"), in_its_name(arena)

    def greeted() -> int:
        return sum(
            m.client == "a" and m.upward and m.topic.endswith("/status") and b'"state":"online"' in m.payload
            for m in list(arena.proxy.kept)
        )

    before, refused = greeted(), arena.said(a, "lineage/main/status: unknown-key")
    with arena.without("aggregator"):
        attacker.tell("a", AggregatorStatus(NAME, LINEAGE), attacker.sign(Status, state="online"))
        arena.judge(succeeded=lambda: greeted() > before, refused=refused)


def forged_model(arena: Arena, how: str = "", by: Identity | None = None) -> tuple[bytes, Parcel, str]:
    """Member c has the group key, so it can seal a model as the aggregator does: its manifest, itself, its hash.

    `how`: sealed otherwise. `by`: who signs it.
    """
    attacker, newest = in_its_name(arena), arena.read(Manifest, "/main/model")
    signer = by or attacker.identity
    path = arena.federation.model(newest.core.round)
    arrays = {name: array + np.float32(1) for name, array in weights.read(path).items()}
    source = attacker.folder / "forged.safetensors"
    weights.write(source, arrays, weights.read_layout_of(path).metadata)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    right = arena.group_keyring(newest.envelope.group)
    keyring = downgraded(right, how) if how else right
    parcel = pack(
        attacker.folder, source, "{}", keyring, federation=NAME, phase=newest.core.phase, kind="model", sender=LINEAGE,
        base=sha256,
    )  # fmt: skip
    envelope = parcel.envelope(keyring, "*")
    made = msgspec.structs.replace(newest, key=signer.key, core=parcel.core, envelope=envelope)
    return signer.sign(made), parcel, sha256


@both
def test_attack_a_model_that_the_aggregator_has_not_made(arena: Arena) -> None:
    a, attacker = device(arena, "a"), in_its_name(arena)
    with arena.round():
        pass
    manifest, parcel, sha256 = forged_model(arena)
    believed = arena.said(a, f"global model {sha256[:12]} received")
    refused = arena.said(a, "lineage/main/model: unknown-key")
    with arena.without("aggregator"):
        attacker.tell("a", ModelManifest(NAME, LINEAGE), manifest)
        attacker.tell("a", ModelChunk(NAME, LINEAGE, parcel.core.round, parcel.name, 0), parcel.chunk(0))
        arena.judge(succeeded=believed, refused=refused)


@both
@pytest.mark.parametrize("how", ["plaintext", "fernet", "shared", "none"])
def test_attack_a_model_that_is_not_sealed_as_all_must_be(arena: Arena, how: str) -> None:
    """A downgrade that a manifest with the aggregator's own signature would choose: another suite, or wrap."""
    a, attacker = device(arena, "a"), in_its_name(arena)
    with arena.round():
        pass
    manifest, parcel, sha256 = forged_model(arena, how, arena.aggregator_identity)
    believed, refused = arena.said(a, f"global model {sha256[:12]} received"), arena.said(a, "main/model: suite")
    with arena.without("suite"):
        attacker.tell("a", ModelManifest(NAME, LINEAGE), manifest)
        attacker.tell("a", ModelChunk(NAME, LINEAGE, parcel.core.round, parcel.name, 0), parcel.chunk(0))
        arena.judge(succeeded=believed, refused=refused)


@both
def test_attack_a_new_model_opened_by_who_has_been_revoked(arena: Arena) -> None:
    """It keeps its keys, hears every byte, and has the group key of before."""
    federation = arena.federation
    assert isinstance(federation, Enrolled)
    federation.enrol("gone")
    keys = load_keys(federation.state("gone"), "gone")
    ring = Membership(federation.state("gone"), federation.anchor, "gone", LINEAGE, keys.sealing).ring

    def opens() -> bool:
        """The newest model: its number for the group key is no secret."""
        newest = arena.read(Manifest, "/main/model")
        known = EnrolledKeyring("chacha20-poly1305", None, keys.sealing, replace(ring, group=newest.envelope.group))
        try:
            return bool(known.open(newest.core, newest.envelope))
        except Refused:
            return False

    with arena.round():
        pass
    assert opens()
    with arena.without("group-key"):
        federation.order("devices", "revoke", "gone")
        with arena.round() as number:
            pass
        assert arena.read(Manifest, "/main/model").core.round == number
        arena.judge(succeeded=opens, refused=lambda: not opens())


@both
def test_attack_an_older_model_of_the_aggregators_own(arena: Arena) -> None:
    """Rollback: validly signed and sealed, and newer ones have been seen."""
    a = device(arena, "a")
    with arena.round():
        pass
    old = arena.newest("/main/model")
    core = verify(old.payload, Manifest).core
    chunk = arena.newest(f"/chunk/{name_of(core)}/0")
    with arena.round():
        pass
    believed = arena.said(a, f"global model {core.base[:12]} received")
    refused = arena.said(a, "older than a model's manifest")
    with arena.without("order"):
        arena.proxy.say("a", old.topic, old.payload)
        arena.proxy.say("a", chunk.topic, chunk.payload)
        arena.judge(succeeded=believed, refused=refused)


@both
def test_attack_an_old_entry_beside_a_new_head(arena: Arena) -> None:
    """The broker withholds the entry with the newest group key: the device must wait for it, not fail its rounds."""
    arena.proxy.rule = lambda m: DROP if m.client == "c" and m.topic.endswith("/to/c/entry") else PASS
    with arena.without("patience"):
        c = arena.client("c")
        arena.federation.wait(lambda: "connected to" in c.said(), "c was to come")
        waits = arena.said(c, "sealed under group key")
        with arena.round(hold="b") as number:
            arena.judge(
                succeeded=lambda: arena.federation.query(
                    "SELECT * FROM updates WHERE device = 'c' AND reason = 'device'"
                ),
                refused=waits,
            )
            arena.proxy.rule = lambda message: PASS
            if arena.defended:
                arena.proxy.cut("c")
                arena.proxy.mend("c")
                arena.federation.wait(lambda: bool(arena.accepted("c", number)), "c was to go on with its new entry")
    c.interrupt()
