"""Whose messages an aggregator looks at when somebody writes too many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from helpers.wire import ANN, EVE

from aggregator.limits import DEVICE
from aggregator.log import Log
from aggregator.server import Aggregator
from floe.keyring import Keyring
from floe.settings import Config
from floe.topics import OperatorCommand


@pytest.fixture
def aggregator(tmp_path: Path) -> Iterator[Aggregator]:
    (tmp_path / "operators.pub").write_text(f"opa {ANN.key}\nopb {EVE.key}\n")
    with closing(Log(tmp_path / "log")) as log:
        yield Aggregator(Config(folder=tmp_path), ANN, Keyring("plaintext", None), log, tmp_path / "state")


def test_no_stranger_and_no_operator_takes_anothers_share_of_commands(aggregator: Aggregator) -> None:
    def hears(operator: str) -> bool:
        return aggregator._hears(OperatorCommand("floe", operator, "main"), None)

    def flood(*names: str) -> int:
        return sum(hears(names[number % len(names)]) for number in range(int(2 * DEVICE.burst)))

    assert flood("eve", "mallory") < 2 * DEVICE.burst, "all strangers together are one"
    assert not hears("trent")
    assert hears("opa")
    flood("opa")
    assert not hears("opa")
    assert hears("opb")
