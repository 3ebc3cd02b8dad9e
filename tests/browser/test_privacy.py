"""What has been spent of privacy, on the pages: the numbers of the log, rounded up, with unit, delta and accountant."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from helpers.browser import Tab
from helpers.federation import Federation, a_federation
from helpers.page import Served
from playwright.sync_api import expect

from floe.privacy import rounded_up, words

PLAN = {"model": "linear", "scaling": "none", "batch_size": 8, "privacy": "example", "noise_multiplier": 1.0}
SLOW_S = 200.0  # torch and opacus, on a machine that others use
OF = "(example, delta 0.001, rdp)"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A simulation of two devices with unequal rows, and so with unequal epsilons."""
    with a_federation(tmp_path_factory.mktemp("private")) as federation:
        federation.configure({"plan": {**PLAN, "delta": 1e-3}})
        federation.features("a")
        federation.features("b", rows=80)
        assert federation.start("simulate", "simulate").wait(SLOW_S) == 0
        yield federation


@pytest.fixture(scope="module")
def served_private(private: Federation) -> Served:
    return Served(private)


def test_the_pages_tell_what_has_been_spent(
    open_tab: Callable[..., Tab], private: Federation, served_private: Served
) -> None:
    tab = open_tab(served_private, width=3200)
    spent = {row["device"]: row["epsilon"] for row in private.query("SELECT device, epsilon FROM devices")}
    assert spent["a"] > spent["b"] > 0
    assert tab.open().drawn().metrics()[f"Epsilon {OF}"] == rounded_up(spent["a"])
    shown = tab.open("devices").table("devices").rows()
    assert {row["Device"]: float(row["Epsilon"]) for row in shown} == pytest.approx(spent)
    tab.open("devices?device=b")
    expect(tab.main.get_by_text(words(spent["b"], "example", 1e-3, "rdp"))).to_be_attached()
    rounds = tab.drawn().table("device-rounds").rows()
    told = [float(row["Epsilon"]) for row in rounds if row["Task"] == "train"]
    assert told == pytest.approx([spent["b"], told[-1]])
    assert 0 < told[-1] < spent["b"]
