"""The pages Devices, Models and Data: what they show is what SQL says, what they give is what the files hold."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from helpers.browser import Tab
from helpers.federation import Federation
from helpers.page import Served
from playwright.sync_api import Download, expect

REST_MS = 1500  # longer than the pages go on by themselves


@pytest.fixture
def tab(open_tab: Callable[..., Tab], served: Served) -> Tab:
    """So wide that every column is in view."""
    return open_tab(served, width=3200)


def saved(download: Download, folder: Path) -> bytes:
    path = folder / download.suggested_filename
    download.save_as(path)
    return path.read_bytes()


def instant(text: str) -> datetime:
    """The moment that a cell tells."""
    moment = datetime.fromisoformat(text.replace(" ", "T"))
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo("Europe/Zurich"))


def test_devices_shows_what_the_log_says_of_each(tab: Tab, finished: Federation) -> None:
    shown = {row["Device"]: row for row in tab.open("devices").table("devices").rows()}
    rows = finished.query(
        "SELECT d.device, d.state, d.last_seen, d.rounds, d.threshold, d.bytes, d.software, u.accuracy, u.samples "
        "FROM devices d JOIN updates u ON u.id = d.trained"
    )
    assert set(shown) == {row["device"] for row in rows} == {"a", "b", "c"}
    for row in rows:
        seen = shown[row["device"]]
        assert (seen["State"], seen["Software"], seen["Last train round"]) == (
            row["state"],
            row["software"],
            "took part",
        )
        assert instant(seen["Last seen"]) == datetime.fromisoformat(row["last_seen"]).replace(microsecond=0)
        assert float(seen["Accuracy (%)"]) == pytest.approx(100 * row["accuracy"])
        assert seen["Threshold"] == ("" if row["threshold"] is None else str(row["threshold"]))
        assert (int(seen["Rounds"]), int(seen["Samples"])) == (row["rounds"], row["samples"])
    assert "3 devices" in tab.text()


def test_a_selected_device_stays_selected_and_leads_to_its_page(tab: Tab, finished: Federation) -> None:
    tab.open("devices").table("devices").select(1)
    expect(tab.main.get_by_text("Stands still as of")).to_be_visible()
    tab.page.wait_for_timeout(REST_MS)
    assert len(tab.table("devices").selected()) == 1
    tab.page.get_by_role("button", name="Open b").click()
    tab.page.get_by_role("heading", level=1, name="b", exact=True).wait_for()
    assert tab.page.url.endswith("/devices?device=b")
    expected = finished.query("SELECT * FROM updates WHERE device = 'b' ORDER BY id DESC")
    shown = tab.drawn().table("device-rounds").rows()
    assert [(row["Task"], int(row["Round"])) for row in shown] == [(row["task"], row["round"]) for row in expected]
    for seen, row in zip(shown, expected, strict=True):
        for title, name in (("Loss before", "base_loss"), ("Loss after", "loss"), ("ROC-AUC after", "roc_auc")):
            assert (float(seen[title]) if seen[title] else None) == pytest.approx(row[name]), title
    tab.page.get_by_role("button", name="All devices").click()
    tab.page.get_by_role("heading", level=1, name="Devices", exact=True).wait_for()


def test_a_device_that_nobody_knows_has_a_page_that_says_so(tab: Tab) -> None:
    tab.open("devices?device=%3Cb%3E**x**")
    assert tab.page.get_by_role("heading", level=1).inner_text() == "<b>**x**"
    expect(tab.main.get_by_text("The log has no device '<b>**x**'.")).to_be_visible()


def test_the_charts_of_a_device_are_drawn_and_the_console_is_silent(tab: Tab) -> None:
    charts = tab.open("devices?device=a").main.get_by_test_id("stVegaLiteChart")
    expect(charts.nth(4)).to_be_attached()  # loss and accuracy, processor, memory and disk at least
    expect(charts.locator("canvas, svg")).to_have_count(charts.count())


def test_states_and_text_leave_the_devices_that_are_so(tab: Tab) -> None:
    search = tab.open("devices").page.get_by_role("textbox", name="Search")
    search.fill("C")
    search.press("Enter")
    expect(tab.table("devices").place.locator("canvas table[role=grid]")).to_have_attribute("aria-rowcount", "2")
    assert tab.table("devices").column("Device") == ["c"]


def test_models_shows_the_registry_and_gives_a_model_as_it_is(tab: Tab, finished: Federation, tmp_path: Path) -> None:
    rows = finished.query("SELECT * FROM models ORDER BY round DESC")
    table = tab.open("models").table("models")
    shown = table.rows()
    assert [row["SHA-256"] for row in shown] == [row["sha256"] for row in rows]
    assert [row["Present"] for row in shown] == ["present", *[""] * (len(rows) - 1)]
    for seen, row in zip(shown, rows, strict=True):
        for title, name in (("Loss", "loss"), ("ROC-AUC", "roc_auc"), ("Training rows", "samples")):
            assert (float(seen[title]) if seen[title] else None) == pytest.approx(row[name]), title
        assert float(seen["Size (kB)"]) == pytest.approx(row["bytes"] / 1000)
    table.select(1)
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Download, ").click()
    assert hashlib.sha256(saved(download.value, tmp_path)).hexdigest() == rows[1]["sha256"]
    given = finished.query("SELECT device, weight FROM updates WHERE merged = ? AND task = 'train'", rows[1]["round"])
    weights = {row["Device"]: float(row["Weight (%)"]) / 100 for row in tab.table("contributors").rows()}
    assert weights == pytest.approx({row["device"]: row["weight"] for row in given})


def test_two_models_are_compared_tensor_by_tensor(tab: Tab) -> None:
    table = tab.open("models").table("models")
    table.select(0)
    table.select(2)
    tensors = tab.drawn().table("compared-tensors").rows()
    assert {row["Tensor"] for row in tensors} >= {"weight", "bias"}
    assert all(float(row["Distance (L2)"]) > 0 for row in tensors if row["Tensor"] == "weight")
    figures = {row["Figure"]: row for row in tab.table("compared-figures").rows()}
    assert figures["Loss"]["round 2"] != figures["Loss"]["round 4"]


def test_an_export_equals_the_table(tab: Tab, finished: Federation, tmp_path: Path) -> None:
    tab.open("data")
    tab.page.get_by_role("button", name="Make a CSV").click()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save updates.csv").click()
    assert download.value.suggested_filename == "updates.csv"
    header, *rows = csv.reader(saved(download.value, tmp_path).decode().splitlines())
    expected = finished.query("SELECT * FROM updates ORDER BY id DESC")
    assert [dict(zip(header, row, strict=True)) for row in rows] == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in expected
    ]


def test_every_table_can_be_looked_at(tab: Tab, finished: Federation) -> None:
    tab.open("data")
    for row in finished.query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"):
        tab.page.get_by_role("combobox", name="Table").click()
        tab.page.get_by_role("option", name=row["name"], exact=True).click()
        (count,) = finished.query(f"SELECT count(*) AS rows FROM {row['name']}")
        told = f"{row['name']} is empty." if not count["rows"] else f"Page 1: {count['rows']:,} rows. {row['name']} has"
        expect(tab.main.get_by_text(told)).to_be_visible()
