"""What happens after the page was loaded is seen there: rounds, devices and an aggregator that come and go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.browser import SOON_MS, WAIT_MS, Tab
from helpers.federation import Federation
from helpers.page import Served
from helpers.process import Process
from playwright.sync_api import Locator, expect

DEVICE = "Device"
OpenTab = Callable[..., Tab]


@pytest.fixture
def devices(federation: Federation) -> dict[str, Process]:
    """Aggregator and devices a and b of three rounds; a waits in each of them for `let_go`."""
    federation.configure({"rounds": {"count": 3, "devices": 2}, "plan": {"model": "held"}})
    for round_ in (1, 2, 3):
        hold(federation, round_).touch()
    return {
        "aggregator": federation.aggregator(),
        **{device: federation.client(device) for device in ("a", "b")},
    }


def hold(federation: Federation, round_: int) -> Path:
    return federation.folder / f"hold-a-{round_}"


def let_go(federation: Federation, round_: int) -> None:
    """The last device of this round may train."""
    hold(federation, round_).unlink()


def until_open(federation: Federation, round_: int) -> None:
    federation.until("SELECT 1 FROM rounds WHERE round = ? AND task = 'train' AND state = 'open'", round_)


def test_a_round_advances_under_the_readers_eyes_and_the_page_stays_where_it_is_scrolled_to(
    federation: Federation, devices: dict[str, Process], open_tab: OpenTab
) -> None:
    until_open(federation, 1)
    tab = open_tab(Served(federation)).open()
    tab.says("round 1: training")
    tab.main.evaluate("e => e.scrollTo(0, 300)")
    tab.page.wait_for_timeout(200)
    down = tab.main.evaluate("e => e.scrollTop")
    assert down > 0
    for round_ in (1, 2):
        let_go(federation, round_)
        until_open(federation, round_ + 1)
        tab.says(f"round {round_ + 1}: training")
    assert tab.main.evaluate("e => e.scrollTop") == down


def test_a_device_that_is_killed_is_seen_to_go_offline_and_to_come_back(
    federation: Federation, devices: dict[str, Process], open_tab: OpenTab
) -> None:
    until_open(federation, 1)
    overview = open_tab(Served(federation)).open()
    table = overview.beside().open("devices")
    overview.says("2 of 2 devices online")
    devices["b"].kill()
    overview.says("1 of 2 devices online")
    expect(row_of(table, "b")).to_contain_text("offline", timeout=SOON_MS)
    federation.client("b")
    overview.says("2 of 2 devices online")
    expect(row_of(table, "b")).not_to_contain_text("offline", timeout=SOON_MS)


def test_an_aggregator_that_is_killed_is_told_and_seen_to_come_back(
    federation: Federation, devices: dict[str, Process], open_tab: OpenTab
) -> None:
    until_open(federation, 1)
    tab = open_tab(Served(federation)).open()
    tab.says_not("not running")
    devices["aggregator"].kill()
    tab.says(r"not running.*last event .* ago")
    federation.aggregator()
    tab.says_not("not running")
    let_go(federation, 1)
    tab.says("round 2: training")


def test_a_row_that_is_selected_stays_selected_while_rounds_go_on(
    federation: Federation, devices: dict[str, Process], open_tab: OpenTab
) -> None:
    until_open(federation, 1)
    tab = open_tab(Served(federation)).open("devices")
    row = [row[DEVICE] for row in tab.table().seen()].index("b")
    tab.table().select(row)
    let_go(federation, 1)
    until_open(federation, 2)
    tab.page.wait_for_timeout(2500)
    (selected,) = tab.table().selected()
    assert selected.startswith("b")


def test_a_page_works_again_when_floe_ui_was_started_again(
    federation: Federation, devices: dict[str, Process], open_tab: OpenTab
) -> None:
    until_open(federation, 1)
    served = Served(federation)
    tab = open_tab(served).open()
    with tab.watch.excusing("ERR_CONNECTION|WebSocket|server"):
        served.restart()
        let_go(federation, 1)
        tab.says("round 2: training", timeout_ms=WAIT_MS)


def row_of(tab: Tab, device: str) -> Locator:
    return tab.main.locator("tr").filter(has_text=device)
