"""Pictures of the page beside a real `floe demo`: for the README, with `pytest ... --screenshots DIR`."""

from __future__ import annotations

import io
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.browser import Tab, new_tab
from helpers.page import ADDRESS
from helpers.process import WAIT_S, Process
from PIL import Image
from playwright.sync_api import Browser

ROUNDS, FROM = 60, 12  # of the demo; the first that is on a picture
# Rounds of more than a second, in which the devices are seen to train.
SLOWER = {"FLOE_PLAN_EPOCHS": "50", "FLOE_PLAN_LEARNING_RATE": "0.0005"}
SETTLED_MS = 2000  # charts and tables are drawn after the page
MOST = 150_000  # bytes of a picture, which the repository keeps
# Every chart has marks of its data, which Vega draws as SVG.
DRAWN = """count => {
    const charts = [...document.querySelectorAll('[data-testid=stVegaLiteChart]')];
    return charts.length >= count && charts.every(chart => chart.querySelector('svg .role-mark path[d]'));
}"""
MARGIN = 40  # pixels of a chart that may be without ink
COLORS = 8  # at least, of a chart's part of a picture: letters alone have more
PNG_SIZE = struct.Struct(">II")


@dataclass(frozen=True)
class Picture:
    """One of a page; a phone is 390 wide."""

    name: str
    path: str
    width: int = 1280
    height: int = 900
    dark: bool = False
    charts: int = 0


PICTURES = (
    Picture("overview", "", height=1280, charts=6),
    Picture("devices", "devices"),
    Picture("models", "models"),
    Picture("network", "network", charts=2),
    Picture("log", "log"),
    Picture("control", "control"),
    Picture("phone", "", width=390, height=844, charts=6),
    Picture("dark", "", dark=True, charts=6),
)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """The address of the page beside a demo of which some rounds are over."""
    log = tmp_path / "run" / "log" / "floe.sqlite"
    process = Process(["demo", "--ui", "--rounds", str(ROUNDS), "--out", "run"], tmp_path, tmp_path / "said", SLOWER)
    try:
        until(lambda: bool(ADDRESS.search(process.said())) and rounds_of(log) >= FROM, process)
        yield ADDRESS.search(process.said())[1]  # type: ignore[index]
    finally:
        code = process.interrupt()
    assert code in (0, 130), process.said()  # 0: all rounds were over
    assert "Traceback" not in process.said()


def rounds_of(log: Path) -> int:
    """How many rounds have a model."""
    if not log.exists():
        return 0
    with closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT coalesce(max(round), 0) FROM models").fetchone()[0])
        except sqlite3.OperationalError:  # its tables are being made
            return 0


def until(holds: Callable[[], bool], process: Process) -> None:
    end = time.monotonic() + 2 * WAIT_S
    while not holds():
        assert process.running, process.said()
        assert time.monotonic() < end, process.said()
        time.sleep(0.1)


def take(tab: Tab, picture: Picture, path: Path) -> bytes:
    """The picture as a PNG, also in this file."""
    tab.page.emulate_media(color_scheme="dark" if picture.dark else "light")
    tab.page.set_viewport_size({"width": picture.width, "height": picture.height})
    tab.open(picture.path).page.wait_for_timeout(SETTLED_MS)
    tab.page.wait_for_function(DRAWN, arg=picture.charts)
    return tab.page.screenshot(path=path)


def blank_charts(tab: Tab, content: bytes) -> list[str]:
    """Which charts are in sight on a picture, but nothing of theirs."""
    found = []
    with Image.open(io.BytesIO(content)) as picture:
        for chart in tab.main.get_by_test_id("stVegaLiteChart").all():
            box = chart.bounding_box()
            assert box
            x, y, right, below = box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]
            part = (x, y, min(right, picture.width), min(below, picture.height))
            colors = picture.crop(part).getcolors(2**24) if part[3] - y > MARGIN and part[2] > x else None
            if colors is not None and len(colors) < COLORS:
                found.append(str(chart.get_attribute("aria-label")))
    return found


@pytest.mark.slow
def test_the_pages_beside_a_demo_are_pictured(
    demo: str, chromium: Browser, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = Path(request.config.getoption("--screenshots") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    tab = new_tab(chromium, demo, width=1280, dark=False, zone="Europe/Zurich")
    for picture in PICTURES:
        content = take(tab, picture, folder / f"{picture.name}.png")
        assert PNG_SIZE.unpack(content[16:24]) == (picture.width, picture.height)
        assert len(content) < MOST, picture.name
        assert blank_charts(tab, content) == [], picture.name
    tab.close()
