"""A real Chromium, headless, that reads the page as a person does and forgives no error."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    Response,
    TimeoutError,
    expect,
    sync_playwright,
)

from helpers.grid import Table
from ui.parts.live import DEFECT

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 30_000  # for a page to be drawn, on two busy cores
SOON_MS = 10_000  # what is told within two seconds, on two busy cores
# Parts of a page draw themselves every second, so that its moments of rest are short: they are counted.
_COUNT_RESTS = """
    window.rests = 0;
    new MutationObserver(changes => {
        window.rests += changes.filter(change => change.target.dataset.testScriptState === 'notRunning').length;
    }).observe(document, {subtree: true, attributeFilter: ['data-test-script-state']});
"""
_DRAWN = """rests => {
    const app = document.querySelector('[data-testid=stApp]');
    return (app.dataset.testScriptState === 'notRunning' || window.rests > rests)
        && app.dataset.testConnectionState === 'CONNECTED'
        && !document.querySelector('[data-testid=stSkeleton], [data-testid=stAppSkeleton]');
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium with a profile of its own. Skips where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("tests in a browser: no `chromium` here; sudo apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Watch:
    """What went wrong in tabs: errors of the console and of scripts, requests that failed or left this machine."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def over(self, page: Page) -> None:
        """Listen to this one, too."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self._leaves(request.url))
        page.on("websocket", lambda socket: self._leaves(socket.url))
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    @contextmanager
    def excusing(self, pattern: str) -> Iterator[None]:
        """Faults that match are expected while the block runs: of a page whose server is away, say."""
        before = len(self.faults)
        try:
            yield
        finally:
            self.faults[before:] = [fault for fault in self.faults[before:] if not re.search(pattern, fault)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" or "extent" in message.text:  # Vega, of a chart without numbers
            self.faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _leaves(self, url: str) -> None:
        place = urlsplit(url)
        if place.scheme not in {"data", "blob"} and place.hostname != "127.0.0.1":
            self.faults.append(f"beyond this machine: {url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page was left while it loaded
            self.faults.append(f"failed: {request.url} ({request.failure})")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"answered {response.status}: {response.url}")


class Tab:
    """One tab at the page of `address`. `page` is Playwright's own, for what has no word here."""

    def __init__(self, page: Page, address: str, watch: Watch) -> None:
        self.page = page
        self.address = address
        self.watch = watch
        watch.over(page)
        page.set_default_timeout(WAIT_MS)

    def beside(self) -> Tab:
        """Another one of the same reader, which is closed with this one."""
        return Tab(self.page.context.new_page(), self.address, self.watch)

    def open(self, path: str = "") -> Tab:
        """A page by its address (`devices`), once it is drawn."""
        self.page.goto(f"{self.address}/{path}")
        return self.drawn()

    def go(self, title: str) -> Tab:
        """A page by the navigation, once it is drawn."""
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True).click()
        self.page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
        return self.drawn()

    def drawn(self) -> Tab:
        """Wait until Streamlit has drawn: connected, a title there, nothing running, no skeleton."""
        try:
            self.main.get_by_role("heading", level=1).wait_for()
            self.page.wait_for_function(_DRAWN, arg=self.page.evaluate("window.rests"), polling=50)
        except TimeoutError:
            raise AssertionError(f"not drawn: {self.page.url}\n{self.text()}\n{self.watch.faults}") from None
        assert DEFECT not in self.text(), self.text()
        return self

    @property
    def main(self) -> Locator:
        """The page without its navigation."""
        return self.page.get_by_test_id("stMain")

    def text(self) -> str:
        """All text of the page outside of tables, as it is seen."""
        return self.main.inner_text()

    def metrics(self) -> dict[str, str]:
        """Every `st.metric` by its label."""
        found = self.main.get_by_test_id("stMetric").evaluate_all(
            """all => all.map(one => ['stMetricLabel', 'stMetricValue'].map(
                part => one.querySelector(`[data-testid=${part}]`).innerText.trim()))"""
        )
        return dict(found)

    def table(self, which: int | str = 0) -> Table:
        """An `st.dataframe`: by its place on the page, or by its `key`."""
        tables = self.main if isinstance(which, int) else self.main.locator(f".st-key-{which}")
        found = tables.get_by_test_id("stDataFrame")
        return Table(self.page, found.nth(which) if isinstance(which, int) else found)

    def says(self, pattern: str, timeout_ms: int = SOON_MS) -> None:
        """Wait until the text of the page has this (a regular expression, in any case)."""
        expect(self.main).to_contain_text(re.compile(pattern, re.IGNORECASE), timeout=timeout_ms)

    def says_not(self, pattern: str, timeout_ms: int = SOON_MS) -> None:
        """Wait until the text of the page has this no more."""
        expect(self.main).not_to_contain_text(re.compile(pattern, re.IGNORECASE), timeout=timeout_ms)

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the window."""
        return bool(
            self.main.evaluate(
                "e => e.scrollWidth > e.clientWidth || document.documentElement.scrollWidth > window.innerWidth"
            )
        )

    def close(self) -> None:
        """Close it; fails if anything went wrong in it."""
        self.page.context.close()
        assert not self.watch.faults, "\n".join(self.watch.faults)


def new_tab(browser: Browser, address: str, *, width: int, dark: bool, zone: str) -> Tab:
    """A tab in a context of its own: nothing is left of one before."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        timezone_id=zone,
        reduced_motion="reduce",
    )
    context.add_init_script(_COUNT_RESTS)
    return Tab(context.new_page(), address, Watch())
