"""Control in a real browser: a click is an operator's signed command, and the log says that it was followed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import people
from helpers.browser import SOON_MS, WAIT_MS, Tab
from helpers.federation import Federation
from helpers.page import Served
from playwright.sync_api import Locator, expect

from floe import qr
from ui.password import hashed

DEVICES = ("a", "b")
BELONGS = "SELECT * FROM roster WHERE device = ? AND state = ?"
OpenTab = Callable[..., Tab]
ANSWER_MS = 4 * WAIT_MS  # a command is a process that starts, connects, asks: on two busy cores


@pytest.fixture
def running(federation: Federation) -> Federation:
    """Two devices that train without end; an operator's key is there. Enough pause to see a round stand."""
    federation.configure({"rounds": {"count": 100_000, "devices": 2, "pause_s": 0.3}})
    assert federation.start("key", "key", "operator").wait() == 0
    federation.aggregator()
    for device in DEVICES:
        federation.client(device)
    federation.until("SELECT * FROM models WHERE round >= 1")
    return federation


@pytest.fixture
def enrolled(federation: Federation) -> Federation:
    """One member, and an operator."""
    people.found(federation, {"rounds": {"count": 100_000, "devices": 1, "pause_s": 3.0}})
    federation.aggregator()
    people.let_in(federation, "a")
    federation.until("SELECT * FROM models WHERE round >= 1")
    return federation


def control(open_tab: OpenTab, federation: Federation, **how: object) -> Tab:
    return open_tab(Served(federation), **how).open().go("Control")


def button(tab: Tab, name: str) -> Locator:
    return tab.main.get_by_role("button", name=name, exact=True)


def alert(tab: Tab, text: str | re.Pattern[str]) -> Locator:
    return tab.main.get_by_test_id("stAlert").filter(has_text=text)


def closed(federation: Federation) -> int:
    sql = "SELECT count(*) AS rounds FROM rounds WHERE state = 'closed' AND task = 'train'"
    return int(federation.query(sql)[0]["rounds"])


def test_a_stopped_federation_is_started_from_the_page(running: Federation, open_tab: OpenTab) -> None:
    people.order(running, "round", "stop")
    running.until("SELECT * FROM standing WHERE held = 'stopped' AND stage = 'waiting'")
    before = closed(running)
    tab = control(open_tab, running)
    expect(button(tab, "Start")).to_be_enabled()
    for name in ("Pause", "Resume", "Stop"):
        expect(button(tab, name)).to_be_disabled()
    tab.main.get_by_role("spinbutton", name="Rounds that Start trains more").fill("3")
    tab.page.keyboard.press("Enter")
    button(tab, "Start").dblclick()
    expect(alert(tab, re.compile("floe round start --rounds 3: started, to round"))).to_be_visible(timeout=ANSWER_MS)
    running.until("SELECT * FROM standing WHERE stage = 'finished'")
    assert closed(running) == before + 3, "a double click is one command"
    expect(tab.main.get_by_text("All is done")).to_be_visible(timeout=SOON_MS)


def test_pause_and_resume_hold_the_rounds_and_let_them_go(running: Federation, open_tab: OpenTab) -> None:
    tab = control(open_tab, running)
    button(tab, "Pause").click()
    expect(alert(tab, "floe round pause: the open round goes on")).to_be_visible(timeout=ANSWER_MS)
    running.until("SELECT * FROM standing WHERE held = 'paused' AND stage = 'waiting'")
    expect(tab.main.get_by_text(re.compile("Paused before"))).to_be_visible(timeout=SOON_MS)
    expect(button(tab, "Pause")).to_be_disabled()
    before = closed(running)
    button(tab, "Resume").click()
    expect(alert(tab, "floe round resume: the rounds go on")).to_be_visible(timeout=ANSWER_MS)
    running.wait(lambda: closed(running) > before, "another round")
    expect(button(tab, "Resume")).to_be_disabled()


def test_a_change_of_the_plan_arrives_in_the_next_round_and_a_wrong_one_is_not_sent(
    running: Federation, open_tab: OpenTab
) -> None:
    tab = control(open_tab, running)
    epochs = tab.main.get_by_role("textbox", name="epochs")
    expect(epochs).to_have_value("1")
    epochs.fill("0")
    tab.page.keyboard.press("Tab")
    button(tab, "Send to the aggregator").click()
    expect(alert(tab, "[plan] epochs = '0': allowed is whole number")).to_be_visible()
    epochs.fill("3")
    tab.page.keyboard.press("Tab")
    button(tab, "Send to the aggregator").click()
    expect(alert(tab, "floe plan set epochs=3:")).to_be_visible(timeout=ANSWER_MS)
    row = running.until("SELECT plan ->> 'epochs' AS epochs, plan ->> 'seed' AS seed FROM rounds WHERE epochs != 1")
    assert row == {"epochs": 3, "seed": 7}
    expect(tab.main.get_by_role("textbox", name="epochs")).to_have_value("3", timeout=SOON_MS)


def test_an_invitation_is_shown_as_text_and_as_a_code_that_reads_the_same(
    enrolled: Federation, open_tab: OpenTab, tmp_path: Path
) -> None:
    tab = control(open_tab, enrolled)
    tab.main.get_by_role("textbox", name="Name of the device").fill("b")
    tab.page.keyboard.press("Tab")
    button(tab, "Invite").click()
    picture = tab.main.get_by_test_id("stImage").locator("img")
    expect(picture).to_be_visible(timeout=ANSWER_MS)
    shown = tab.main.get_by_test_id("stCode").first.inner_text().strip()
    for _ in range(2):
        button(tab, "Refresh the list").click()
        expect(alert(tab, "floe devices list --json: running")).to_be_visible()
        expect(alert(tab, "floe devices list --json: running")).to_be_hidden(timeout=ANSWER_MS)
        tab.drawn()
        assert picture.evaluate("one => one.complete && one.naturalWidth > 0")
        assert picture.get_attribute("src").startswith("data:image/png;base64,")  # type: ignore[union-attr]
    picture.screenshot(path=tmp_path / "code.png")
    assert qr.read(tmp_path / "code.png") == shown
    expect(tab.main.get_by_text(re.compile(r"For b, until \d{4}-"))).to_be_visible()
    people.order(enrolled, "join", shown, "--id", "b", "--no-wait")


def test_a_device_whose_number_agrees_is_let_in_and_one_that_is_revoked_by_its_name_is_out(
    enrolled: Federation, open_tab: OpenTab
) -> None:
    people.join(enrolled, "b")
    tab = control(open_tab, enrolled)
    button(tab, "Refresh the list").click()
    expect(tab.main.get_by_text("b asks to be let in, since")).to_be_visible(timeout=ANSWER_MS)
    number = re.search(r"b +pending .* (\d{3} \d{3})$", people.order(enrolled, "devices", "list"), re.MULTILINE)
    assert number
    expect(tab.main.get_by_test_id("stCode").filter(has_text=number[1])).to_be_visible()
    expect(button(tab, "Approve")).to_be_disabled()
    tab.main.get_by_text("the device shows this number").click()
    button(tab, "Approve").click()
    expect(alert(tab, re.compile("b approved, version"))).to_be_visible(timeout=ANSWER_MS)
    enrolled.until(BELONGS, "b", "approved")

    # The list is asked for anew, and with it comes another form.
    expect(tab.main.get_by_text("b asks to be let in, since")).not_to_be_visible(timeout=ANSWER_MS)
    name = tab.main.get_by_role("textbox", name="To revoke it, type its name")
    expect(name).to_be_visible(timeout=ANSWER_MS)
    name.fill("b")
    tab.page.keyboard.press("Tab")
    button(tab, "Revoke").click()  # the member that is chosen is a
    expect(alert(tab, "Not revoked")).to_be_visible()
    enrolled.until(BELONGS, "a", "approved")
    tab.main.get_by_role("textbox", name="To revoke it, type its name").fill("a")
    tab.page.keyboard.press("Tab")
    button(tab, "Revoke").click()
    expect(alert(tab, re.compile("a revoked, version"))).to_be_visible(timeout=ANSWER_MS)
    enrolled.until(BELONGS, "a", "revoked")


def test_without_the_operators_key_the_page_is_for_reading_only_and_says_so(served: Served, open_tab: OpenTab) -> None:
    tab = open_tab(served).open().go("Control")
    expect(alert(tab, re.compile("For reading only: .*no operator's key here"))).to_be_visible()
    for name in ("Start", "Pause", "Resume", "Stop", "Send to the aggregator"):
        expect(button(tab, name)).to_be_disabled()
    expect(tab.main.get_by_text("All is done")).to_be_visible()


def test_a_page_with_a_password_shows_nothing_before_it_and_nothing_after_logging_out(
    finished: Federation, open_tab: OpenTab
) -> None:
    served = Served(finished, name="guarded", env={"FLOE_UI_PASSWORD": hashed("correct horse", cost=2**14)})
    tab = open_tab(served).open("control")
    given = tab.main.get_by_role("textbox", name="Password")
    given.fill("wrong")
    button(tab, "Enter").click()
    expect(alert(tab, "Not the password.")).to_be_visible()
    assert "Rounds" not in tab.text()
    assert tab.page.get_by_test_id("stSidebarNav").count() == 0
    tab.page.wait_for_timeout(2500)
    given.fill("correct horse")
    button(tab, "Enter").click()
    tab.page.get_by_role("heading", level=1, name="Control").wait_for()
    tab.page.get_by_role("button", name="Log out").click()
    expect(tab.main.get_by_role("textbox", name="Password")).to_be_visible()
    assert "correct horse" not in served.process.said() + tab.page.content()
