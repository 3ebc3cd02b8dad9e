"""Fixtures of the tests in a browser: Chromium, tabs that forgive no error, a federation and its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import browser as browsers
from helpers.browser import Tab
from helpers.federation import Federation, a_federation
from helpers.page import Served
from playwright.sync_api import Browser

ZONE = "Europe/Zurich"
DEVICES = ("a", "b", "c")
OpenTab = Callable[..., Tab]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One for all tests of this process."""
    with browsers.chromium() as running:
        yield running


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[OpenTab]:
    """Opens tabs: `open_tab(served, width=390, dark=True)`. Whatever goes wrong in one fails the test at its end."""
    tabs: list[Tab] = []

    def opened(served: Served, *, width: int = 1280, dark: bool = False, zone: str = ZONE) -> Tab:
        tabs.append(browsers.new_tab(chromium, served.address, width=width, dark=dark, zone=zone))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation whose rounds are closed: aggregator and devices a, b, c are still there, nothing moves any more."""
    with a_federation(tmp_path_factory.mktemp("finished")) as federation:
        federation.configure({"rounds": {"count": 4, "devices": len(DEVICES)}})
        federation.aggregator()
        for device in DEVICES:
            federation.client(device)
        federation.finish()
        yield federation


@pytest.fixture(scope="session")
def served(finished: Federation) -> Served:
    """The page of `finished`. For tests that only read."""
    return Served(finished)


@pytest.fixture
def tab(open_tab: OpenTab, served: Served) -> Tab:
    """A tab at the page of `finished`, 1280 wide, light, in Zurich's time."""
    return open_tab(served)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """One of the test's own, configured, nothing started."""
    with a_federation(tmp_path) as made:
        yield made
