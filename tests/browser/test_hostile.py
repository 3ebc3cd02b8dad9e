"""Names and texts of devices are shown as text on every page: nothing of them is obeyed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from helpers import hostile
from helpers.browser import Tab
from helpers.federation import Federation
from helpers.page import Served
from helpers.peer import Peer

from floe.report import Report
from floe.store import FILE
from floe.terminal import printable
from ui.frame import PAGES

OpenTab = Callable[..., Tab]
PATHS = ["" if title == "Overview" else title.lower() for title, _, _ in PAGES]
FAILURE = " ".join(hostile.TEXTS[:8])


@pytest.fixture(scope="module")
def spoilt(finished: Federation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of a log with hostile text wherever text of others can stand."""
    federation = Federation(tmp_path_factory.mktemp("spoilt"), finished.port)
    federation.configure()
    log = federation.folder / "log" / FILE
    log.parent.mkdir()
    with closing(sqlite3.connect(finished.folder / "log" / FILE)) as old, closing(sqlite3.connect(log)) as new:
        old.backup(new)
    hostile.spoil(log)
    yield Served(federation)
    federation.close()


@pytest.mark.parametrize("path", PATHS)
def test_a_page_shows_hostile_texts_as_they_are(spoilt: Served, open_tab: OpenTab, path: str) -> None:
    tab = open_tab(spoilt).open(path)
    tab.page.wait_for_timeout(1500)
    hostile.assert_shown_as_text(tab)
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.page.wait_for_timeout(1500)
    assert not tab.scrolls_sideways()


def test_hostile_names_are_names_in_the_table_of_devices(spoilt: Served, open_tab: OpenTab) -> None:
    assert sorted(open_tab(spoilt).open("devices").table().column("Device")) == sorted(hostile.NAMES)


@pytest.mark.parametrize("name", hostile.NAMES)
def test_a_hostile_name_is_the_title_of_its_own_page(spoilt: Served, open_tab: OpenTab, name: str) -> None:
    tab = open_tab(spoilt).open(f"devices?device={name}")
    assert tab.page.get_by_role("heading", level=1).inner_text() == name
    tab.page.wait_for_timeout(1500)
    hostile.assert_shown_as_text(tab)


def test_the_log_page_shows_every_one_of_them(spoilt: Served, open_tab: OpenTab) -> None:
    tab = open_tab(spoilt).open("log")
    shown = " ".join(text for row in tab.table().rows() for text in row.values())
    assert [text for text in hostile.TEXTS if text not in shown and printable(text) not in shown] == []


def test_a_hostile_failure_of_a_real_device_is_text_where_it_is_told(federation: Federation, open_tab: OpenTab) -> None:
    federation.configure({"rounds": {"count": 5, "devices": 1, "quorum": 1}, "plan": {"scaling": "none"}})
    federation.aggregator()
    with Peer(federation, "__proto__") as peer:
        assert peer.give_first_model(["w"], ["a"]).outcome == "accepted"
        assert peer.deliver(peer.pack(peer.order("train"), {}, Report(failure=FAILURE))).detail == FAILURE
        tab = open_tab(Served(federation)).open()
        for title, _, _ in PAGES[1:]:
            hostile.assert_shown_as_text(tab)
            tab.go(title)
        tab.go("Log")
        tab.page.wait_for_timeout(1500)
        assert hostile.assert_shown_as_text(tab) >= set(hostile.TEXTS[:8])
