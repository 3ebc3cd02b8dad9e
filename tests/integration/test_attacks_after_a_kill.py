"""What was said before is played again to a process that was killed by SIGKILL and has begun again."""

from __future__ import annotations

import pytest
from helpers.arena import Arena
from helpers.federation import LINEAGE, NAME
from helpers.process import Process
from helpers.proxy import DROP, PASS, Message, Verdict

from floe.messages import Round
from floe.signing import verify
from floe.topics import OperatorCommand

both = pytest.mark.parametrize("defended", [False, True])


def process(arena: Arena, name: str) -> Process:
    return next(p for p in reversed(arena.federation.processes) if p.log.stem == name)


def is_greeting(message: Message) -> bool:
    return message.upward and message.client == LINEAGE and message.topic.endswith("/main/status")


def kill_the_aggregator(arena: Arena) -> None:
    """SIGKILL, and another."""
    before = len([m for m in arena.proxy.kept if is_greeting(m)])
    process(arena, "aggregator").kill()
    arena.aggregator()
    arena.heard(is_greeting, count=before + 1)


@both
def test_attack_an_update_that_was_accepted_before_the_kill(arena: Arena) -> None:
    with arena.without("outcomes", "one-answer"), arena.round(hold="b") as number:
        arena.federation.wait(lambda: bool(arena.accepted("a", number)), "a was to be accepted")
        manifest = arena.newest(f"/main/{number}/manifest", "a")
        kill_the_aggregator(arena)
        answers = len(answers_to_a(arena))
        again = arena.said(process(arena, "aggregator"), f"a: train {number} accepted")
        arena.proxy.say(LINEAGE, manifest.topic, manifest.payload)
        arena.judge(succeeded=again, refused=lambda: len(answers_to_a(arena)) > answers)
    assert len(arena.accepted("a", number)) == 1


def answers_to_a(arena: Arena) -> list[Message]:
    """Of an update that has one, the same again."""
    return [m for m in list(arena.proxy.kept) if m.upward and m.topic.endswith("/to/a/answer")]


@both
def test_attack_an_operators_order_of_before_the_kill(arena: Arena) -> None:
    """The operator has paused the rounds, and resumed them; the pause is played again."""
    with arena.round(hold="b"):
        pause = arena.order("pause")
        arena.federation.wait(lambda: arena.federation.said().count("pause: ") > 0, "the pause was to be followed")
        arena.order("resume")
        arena.federation.wait(lambda: arena.federation.said().count("resume: ") > 0, "and the end of it")
        kill_the_aggregator(arena)
        aggregator = process(arena, "aggregator")
        followed = arena.said(aggregator, ": pause: the open round goes on")
        refused = arena.said(aggregator, "older than a command that was given before")
        with arena.without("command-order"):
            arena.proxy.say(LINEAGE, str(OperatorCommand(NAME, "operator", LINEAGE)), pause)
            arena.judge(succeeded=followed, refused=refused)
        if not arena.defended:
            arena.order("resume")


@both
def test_attack_an_old_round_after_the_device_was_killed(arena: Arena) -> None:
    """The broker shows a device that comes back the first round, and hides the present one."""

    def hide(message: Message) -> Verdict:
        hidden = message.client == "a" and not message.upward and message.topic.endswith(("/main/round", "/main/model"))
        return DROP if hidden else PASS

    old = arena.heard(
        lambda m: m.upward and m.topic.endswith("/main/round") and verify(m.payload, Round).phase.round == 1
    )
    with arena.round():
        pass
    process(arena, "a").kill()
    with arena.without("order"):
        arena.proxy.rule = hide
        before = process(arena, "a").said().count("connected to")
        a = arena.client("a")
        arena.federation.wait(lambda: a.said().count("connected to") > before, "a was to come back")
        believed, refused = arena.said(a, "round 1: "), arena.said(a, "older than a round document")
        arena.proxy.say("a", old.topic, old.payload, retained=True)
        arena.judge(succeeded=believed, refused=refused)
    arena.proxy.cut("a")
    arena.proxy.mend("a")
