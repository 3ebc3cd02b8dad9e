"""Fixtures of the integration tests: a federation on a real broker, and one that nothing disturbed to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from helpers.arena import Arena, arena_on
from helpers.broker import broker_on, free
from helpers.enrolment import new_template
from helpers.federation import BIG, Federation, a_federation, the_federation
from helpers.warm import Warm

from broker import run

Make = Callable[[str], AbstractContextManager[Federation]]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[run.Mosquitto]:
    """The federation's broker."""
    with broker_on(tmp_path / "broker", free()) as running:
        yield running


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """What the processes of this session are forked from; tests/e2e and tests/browser start them as users do."""
    with Warm() as found:
        yield found


@pytest.fixture
def federation(broker: run.Mosquitto, tmp_path: Path, warm: Warm) -> Iterator[Federation]:
    """A sealed federation with the default plan; at the end every process is stopped and its log looked through."""
    with the_federation(tmp_path / "federation", broker.port, warm.spawn) as made:
        yield made


@pytest.fixture(scope="session")
def new_federation(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Make:
    """The same with a broker of its own, for fixtures that outlive a test."""
    return lambda name: a_federation(tmp_path_factory.mktemp(name), warm.spawn)


@pytest.fixture(scope="session")
def undisturbed(new_federation: Make) -> dict[int, str]:
    """Two rounds of devices a and b with the plan `BIG`, through nothing; the hash of every model, by round."""
    with new_federation("undisturbed") as federation:
        federation.configure(BIG)
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device)
        federation.finish()
        return federation.models()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an enrolled federation, to be copied."""
    return new_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def arenas(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], Arena]]:
    """Two federations for the attacks of a file, one with all its defences; a and b have done their round."""
    made: dict[bool, Arena] = {}
    with ExitStack() as stack:

        def arena(defended: bool) -> Arena:
            if defended not in made:
                folder = tmp_path_factory.mktemp("arena")
                made[defended] = stack.enter_context(arena_on(folder, template, defended=defended))
                made[defended].aggregator()
                for device in ("a", "b"):
                    made[defended].client(device)
                made[defended].federation.finish()
            return made[defended]

        yield arena


@pytest.fixture
def arena(arenas: Callable[[bool], Arena], defended: bool) -> Arena:
    """The federation of this file for the test's `defended`."""
    return arenas(defended)
