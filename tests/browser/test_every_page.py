"""Every page in a real browser: by its address and by the navigation, light and dark, on a phone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from helpers.browser import Tab
from helpers.federation import Federation
from helpers.page import Served
from playwright.sync_api import expect

from ui.frame import PAGES

TITLES = [title for title, _, _ in PAGES]
OpenTab = Callable[..., Tab]


@pytest.mark.parametrize("title", TITLES)
def test_a_page_opens_by_its_address(tab: Tab, title: str) -> None:
    tab.open(title.lower()).page.wait_for_timeout(1000)  # for what the console says
    assert tab.page.get_by_role("heading", level=1).all_inner_texts() == [title]


def test_from_a_page_opened_by_its_address_all_others_are_reached_and_the_browser_leads_back(tab: Tab) -> None:
    tab.open("devices?device=a").go("Data").go("Overview")
    assert tab.page.url == f"{tab.address}/"
    tab.main.get_by_role("link", name="All devices").click()
    tab.page.get_by_role("heading", level=1, name="Devices", exact=True).wait_for()
    assert tab.drawn().page.url == f"{tab.address}/devices"
    for path, title in (("/", "Overview"), ("/data", "Data")):
        tab.page.go_back()
        tab.page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
        assert tab.drawn().page.url == f"{tab.address}{path}"
    tab.page.reload()
    tab.page.get_by_role("heading", level=1, name="Data", exact=True).wait_for()


def test_a_file_is_downloaded_from_a_page_opened_by_its_address(tab: Tab) -> None:
    tab.open("data").main.get_by_role("button", name="Make a CSV").click()
    with tab.page.expect_download() as download:
        tab.main.get_by_role("button", name="Save updates.csv").click()
    assert download.value.path().read_text().startswith("id,")


@pytest.mark.parametrize("dark", [False, True])
def test_every_page_opens_by_the_navigation(open_tab: OpenTab, served: Served, dark: bool) -> None:
    tab = open_tab(served, dark=dark).open()
    for title in [*TITLES[1:], TITLES[0]]:
        tab.go(title)


@pytest.mark.parametrize("title", TITLES)
def test_no_page_is_wider_than_a_phone(open_tab: OpenTab, served: Served, title: str) -> None:
    tab = open_tab(served, width=390).open("" if title == "Overview" else title.lower())
    assert not tab.scrolls_sideways()


@pytest.mark.parametrize("zone", ["Australia/Adelaide", "America/St_Johns"])
def test_times_are_the_readers(open_tab: OpenTab, served: Served, finished: Federation, zone: str) -> None:
    tab = open_tab(served, zone=zone).open("log")
    tab.says(zone)
    (newest,) = finished.query("SELECT time FROM events ORDER BY id DESC LIMIT 1")
    here = datetime.fromisoformat(newest["time"]).astimezone(ZoneInfo(zone))
    expect(tab.main.locator("td").filter(has_text=f"{here:%Y-%m-%d %H:%M:%S}").first).to_be_attached()
