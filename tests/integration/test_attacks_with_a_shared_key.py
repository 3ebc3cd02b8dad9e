"""Without enrolment: who does not know secret.key, and who does but is not the one that was seen first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec
import pytest
from helpers.arena import ONE_ROUND, Arena
from helpers.attacker import Attacker
from helpers.broker import broker_on, free
from helpers.federation import LINEAGE, NAME, Federation
from helpers.proxy import Proxy

from floe.identity import read_secret
from floe.messages import Round, Status
from floe.seal import membership_proof
from floe.topics import CurrentRound, DeviceStatus

both = pytest.mark.parametrize("defended", [False, True])


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], Arena]]:
    made: dict[bool, Arena] = {}
    with ExitStack() as stack:

        def arena(defended: bool) -> Arena:
            if defended not in made:
                folder = tmp_path_factory.mktemp("pinned")
                broker = stack.enter_context(broker_on(folder / "broker", free()))
                proxy = stack.enter_context(Proxy(broker.port, keep=True))
                federation = Federation(folder / "federation", proxy.port)
                stack.callback(federation.close)
                federation.configure(ONE_ROUND)
                made[defended] = Arena(federation, proxy, defended=defended)
                made[defended].aggregator()
                for device in ("a", "b"):
                    made[defended].client(device)
                federation.finish()
            return made[defended]

        yield arena


@pytest.fixture
def arena(pinned: Callable[[bool], Arena], defended: bool) -> Arena:
    return pinned(defended)


def proof(arena: Arena, attacker: Attacker) -> str:
    """What who knows secret.key can make for any key and name."""
    secret = read_secret(arena.folder / "secret.key")
    assert secret is not None
    return membership_proof(secret, NAME, attacker.name, attacker.identity.key)


@both
def test_attack_who_does_not_know_the_shared_key_takes_no_name(arena: Arena) -> None:
    counted, eve = arena.counted("", "unknown-key"), arena.attacker("eve")
    with arena.without("proof"):
        eve.tell(LINEAGE, DeviceStatus(NAME, "eve"), eve.sign(Status, state="online"))
        arena.judge(
            succeeded=lambda: arena.federation.query("SELECT * FROM devices WHERE device = 'eve'"), refused=counted
        )


@both
@pytest.mark.parametrize("knows", [False, True])
def test_attack_another_aggregator_than_the_one_that_was_seen_first(arena: Arena, knows: bool) -> None:
    """Also with secret.key, which all members have, nobody takes the place of an aggregator that is pinned."""
    attacker = arena.attacker(LINEAGE)
    order = arena.read(Round, "/main/round")
    forged = msgspec.structs.replace(
        order, key=attacker.identity.key, phase=msgspec.structs.replace(order.phase, round=777),
        proof=proof(arena, attacker) if knows else "",
    )  # fmt: skip
    a = next(process for process in arena.federation.processes if process.log.stem == "a")
    believed, refused = arena.said(a, "round 777:"), arena.said(a, "not the aggregator's key that was seen first")
    with arena.without("pin"):
        attacker.tell("a", CurrentRound(NAME, LINEAGE), attacker.identity.sign(forged))
        arena.judge(succeeded=believed, refused=refused)
        attacker.tell("a", CurrentRound(NAME, LINEAGE), arena.newest("/main/round").payload)


@both
def test_attack_another_key_under_the_name_of_a_device_that_was_seen(arena: Arena) -> None:
    """Who knows secret.key, and is not a."""
    attacker = arena.attacker("a")
    seq = arena.read(Status, "/device/a/status", "a").seq
    forged = attacker.sign(Status, seq=seq, state="offline", proof=proof(arena, attacker))
    counted = arena.counted("a", "unknown-key")
    offline = "SELECT * FROM devices WHERE device = 'a' AND state = 'offline'"
    with arena.without("device-pin"):
        attacker.tell(LINEAGE, DeviceStatus(NAME, "a"), forged)
        arena.judge(succeeded=lambda: arena.federation.query(offline), refused=counted)
