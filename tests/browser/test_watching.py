"""Overview, Network and Log in a real browser: their figures are those of the log, and they follow what happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from helpers.browser import SOON_MS, WAIT_MS, Tab
from helpers.federation import Federation
from helpers.page import Served
from playwright.sync_api import expect

from aggregator.log import Log
from floe.terminal import size_words

OpenTab = Callable[..., Tab]
HOSTILE = "<b>bold</b> **stars** :red[red] [here](http://evil.example/) <script>alert(1)</script>"


@pytest.fixture
def log(federation: Federation) -> Iterator[Log]:
    """A log that the test writes itself; nothing runs."""
    with closing(Log(federation.folder / "log")) as made:
        made.federation("floe", "main", 1, "plaintext")
        yield made


def figure(tab: Tab, label: str) -> str:
    [value] = [value for found, value in tab.metrics().items() if found.startswith(label)]
    return value


def until(holds: Callable[[], bool], what: str, timeout_ms: float = SOON_MS) -> None:
    end = time.monotonic() + timeout_ms / 1000
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def health(tab: Tab) -> str:
    return str(tab.main.get_by_test_id("stAlert").first.inner_text())


def test_every_figure_of_the_overview_is_that_of_the_log(finished: Federation, tab: Tab) -> None:
    tab.open()
    [newest] = finished.query("SELECT * FROM models WHERE loss IS NOT NULL ORDER BY round DESC LIMIT 1")
    assert newest["roc_auc"] is None, "the trainer of the tests measures none"
    [sent] = finished.query("SELECT sum(bytes_up + bytes_down) AS bytes FROM rounds WHERE round = 4")
    [devices] = finished.query(
        "SELECT count(*) AS known, sum(state IN ('online', 'training', 'idle')) AS online FROM devices"
    )
    assert tab.metrics() == {
        "Round (of 4)": "4",
        f"Accuracy (round {newest['round']})": f"{100 * newest['accuracy']:.1f} %",
        f"ROC-AUC (round {newest['round']})": "-",
        f"Loss (round {newest['round']})": f"{newest['loss']:.4f}",
        f"Online (of {devices['known']})": str(devices["online"]),
        "Bytes of round 4": size_words(sent["bytes"]),
    }
    groups = {row["What"]: (row["Devices"], row["Which"]) for row in tab.table("groups").rows()}
    assert groups["✔ done"] == ("3", "a, b, c")
    assert {count for what, (count, _) in groups.items() if what != "✔ done"} == {"0"}


def test_the_overview_draws_a_chart_for_each_thing_that_was_measured(tab: Tab) -> None:
    tab.open()
    charts = tab.main.get_by_test_id("stVegaLiteChart")
    expect(charts).to_have_count(5)  # states, loss, accuracy, bytes, seconds
    expect(tab.main.get_by_text("ROC-AUC (0 to 1): no value yet")).to_be_visible()
    for words in ("global model", "devices' own models", "up, from the devices", "seconds of a round"):
        expect(charts.get_by_text(words).first).to_be_visible()


def test_the_network_has_everybody_with_the_state_of_the_link(finished: Federation, tab: Tab) -> None:
    tab.open("network")
    rows = {row["Name"]: row for row in tab.table("links").rows()}
    states = finished.query("SELECT device, state FROM devices")
    assert {name: rows[name]["State"] for name in ("a", "b", "c")} == {one["device"]: one["state"] for one in states}
    assert {rows[name]["Link to the broker"] for name in ("a", "b", "c")} == {"━ connected"}
    assert rows["aggregator main"]["State"] == "running"
    picture = tab.main.get_by_test_id("stVegaLiteChart").first
    for name in ("aggregator main", "a", "b", "c"):
        expect(picture.get_by_text(name, exact=True).first).to_be_visible()


def test_the_log_has_the_events_of_the_log_in_the_readers_time(finished: Federation, tab: Tab) -> None:
    tab.open("log")
    tab.page.get_by_label("Text").fill("closed with")
    tab.page.keyboard.press("Enter")
    told = finished.query("SELECT time, text FROM events WHERE text LIKE '%closed with%' ORDER BY id DESC")
    until(lambda: tab.drawn().table().count() == len(told), "the filter did not work")
    zone = ZoneInfo("Europe/Zurich")
    wanted = [
        (datetime.fromisoformat(one["time"]).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S"), one["text"])
        for one in told
    ]
    assert [(row["Time"], row["What"]) for row in tab.table().rows()] == wanted
    assert "times in Europe/Zurich" in health(tab)


def test_an_event_appears_in_the_log_soon_and_as_text(federation: Federation, log: Log, open_tab: OpenTab) -> None:
    tab = open_tab(Served(federation)).open("log")
    expect(tab.main.get_by_text("0 lines, live")).to_be_visible()
    log.event("error", "refused", HOSTILE, device="a", reason="weights")
    until(lambda: tab.table().has("What", HOSTILE), "the event did not appear")
    tab.table().select(0)
    expect(tab.main.get_by_test_id("stCode")).to_have_text(HOSTILE)
    tab.go("Overview")
    until(lambda: tab.table("wrong").has("What", HOSTILE), "the overview does not tell it")


def test_the_log_stands_still_while_a_line_is_selected(federation: Federation, log: Log, open_tab: OpenTab) -> None:
    log.event("info", "accepted", "the first")
    tab = open_tab(Served(federation)).open("log")
    tab.table().select(0)
    expect(tab.main.get_by_text("held while a line is selected")).to_be_visible()
    log.event("info", "accepted", "the second")
    expect(tab.main.get_by_text("the log has 1 newer ones")).to_be_visible(timeout=SOON_MS)
    assert [row["What"] for row in tab.table().seen()] == ["the first"]
    assert len(tab.table().selected()) == 1
    tab.page.get_by_role("button", name="Newest").click()
    until(lambda: tab.table().has("What", "the second"), "it did not go on", WAIT_MS)
    assert tab.table().selected() == []


def test_a_round_is_seen_to_advance_and_an_aggregator_to_be_killed(federation: Federation, open_tab: OpenTab) -> None:
    federation.configure({"rounds": {"count": 500, "devices": 2}})
    aggregator = federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.until("SELECT 1 FROM rounds WHERE round = 1 AND task = 'train' AND state = 'closed'")
    tab = open_tab(Served(federation)).open()
    before = int(figure(tab, "Round"))
    until(lambda: int(figure(tab, "Round")) > before, "no round was seen to advance", WAIT_MS)
    assert health(tab).splitlines()[-1].startswith("Healthy")
    aggregator.kill()
    until(lambda: "The aggregator is not running" in health(tab), "it was not told")
    assert "ago" in health(tab)


def test_what_is_looked_at_stays_where_it_is_while_the_page_goes_on(
    federation: Federation, log: Log, open_tab: OpenTab
) -> None:
    for n in range(100):
        log.event("info", "accepted", f"event {n}")
    tab = open_tab(Served(federation)).open("log")
    scroller = tab.table().place.locator(".dvn-scroller")
    scroller.evaluate("e => { e.scrollTop = 700; e.dataset.same = 'yes' }")
    log.event("info", "accepted", "one more")
    expect(tab.main.get_by_text("101 lines")).to_be_visible(timeout=SOON_MS)
    assert scroller.evaluate("e => [e.scrollTop, e.dataset.same]") == [700, "yes"]
