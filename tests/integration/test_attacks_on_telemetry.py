"""Telemetry that is played again, another's, or sealed for others than the aggregator."""

from __future__ import annotations

import pytest
from helpers.arena import Arena
from helpers.enrolment import REVOKED, Enrolled
from helpers.federation import LINEAGE, NAME

from floe.seal import wrap_group
from floe.telemetry import Telemetry
from floe.topics import DeviceTelemetry

both = pytest.mark.parametrize("defended", [False, True])
SEQ = 2**40


def rows(arena: Arena, mark: int) -> int:
    """How often telemetry with this mark is in the log, whoever is said to have sent it."""
    return len(arena.federation.query("SELECT * FROM vitals WHERE retries = ?", mark))


@both
@pytest.mark.parametrize(("how", "defence", "device", "reason"), [
    ("played again", "telemetry-order", "c", "duplicate"),
    ("on another's topic", "sender", "a", "not-for-us"),
    ("under the group key", "suite", "c", "suite"),
    ("by who was revoked", "member", REVOKED, "revoked"),
])  # fmt: skip
def test_attack_telemetry_that_is_not_its_own_or_not_new(
    arena: Arena, how: str, defence: str, device: str, reason: str
) -> None:
    """Device c does not run: what is in the log of it came by this."""
    federation = arena.federation
    assert isinstance(federation, Enrolled)
    group = federation.roster("a").head.group
    key = arena.group_keyring(group).ring.group_key
    name = REVOKED if device == REVOKED else "c"
    mark = 1000 + len(how)
    wrap = (lambda core, content: wrap_group(core, content, b"", key, group, LINEAGE)) if "group" in how else None
    payload = arena.attacker(name, name).telemetry(Telemetry(retries=mark), SEQ + mark, wrap)
    topic = DeviceTelemetry(NAME, "a" if "topic" in how else name, LINEAGE)
    expected = 0
    if how == "played again":
        arena.proxy.say(LINEAGE, str(topic), payload)
        federation.wait(lambda: rows(arena, mark) == 1, "the first time it is taken")
        expected = 1
    refused = arena.counted(device, reason)
    with arena.without(defence):
        arena.proxy.say(LINEAGE, str(topic), payload)
        arena.judge(succeeded=lambda: rows(arena, mark) > expected, refused=refused)
