"""What the page costs with a large log: `python tests/bench/page.py --log FOLDER` (made by tests/bench/big_log.py).

For each page, in Chromium: seconds from navigation until Streamlit has drawn, first in a tab of its own, then again
(medians of 3; `ratio` is of these), beside a small log in the same run; then the memory of `floe ui` after all pages.
The goals are 2 s and 500 MB with 5,000 devices and 1,000 rounds. Prints a table, or with --json one object.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import psutil
from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.big import big_log  # noqa: E402 (the path comes first)
from helpers.broker import free  # noqa: E402 (the path comes first)
from helpers.browser import chromium, new_tab  # noqa: E402 (the path comes first)
from helpers.federation import Federation  # noqa: E402 (the path comes first)
from helpers.page import Served  # noqa: E402 (the path comes first)

from ui.frame import PAGES  # noqa: E402 (the path comes first)

TIMES = 3
SMALL = (5, 20)  # devices, rounds


@dataclass(frozen=True)
class Cost:
    """Of one page, in seconds: the first time in a fresh tab, and when it is loaded again."""

    page: str
    first: float
    again: float


@dataclass(frozen=True)
class Costs:
    """Of all pages with one log; `mb`: memory of `floe ui` when all had been drawn, in MB."""

    pages: tuple[Cost, ...]
    mb: float


def measure(browser: Browser, log: Path, folder: Path) -> Costs:
    """Serve this log, and draw every page of it. `log`: the folder with floe.sqlite."""
    federation = Federation(folder, free())
    federation.configure({"paths": {"log": str(log.absolute())}})
    try:
        served = Served(federation)
        pages = tuple(_page(browser, served, title) for title, _, _ in PAGES)
        return Costs(pages, psutil.Process(served.process.pid).memory_info().rss / 1e6)
    finally:
        federation.close()


def _page(browser: Browser, served: Served, title: str) -> Cost:
    path, first, again = "" if title == "Overview" else title.lower(), [], []
    for _ in range(TIMES):
        tab = new_tab(browser, served.address, width=1280, dark=False, zone="Europe/Zurich")
        for kept in (first, again):
            began = time.perf_counter()
            tab.open(path)
            kept.append(time.perf_counter() - began)
        tab.close()
    return Cost(title, statistics.median(first), statistics.median(again))


def table(big: Costs, small: Costs) -> str:
    """Both beside each other, in Markdown."""
    lines = [
        "| page | first, s | again, s | small log: first, s | again, s | ratio, again |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {one.page} | {one.first:.2f} | {one.again:.2f} | {other.first:.2f} | {other.again:.2f} "
        f"| {one.again / other.again:.1f} |"
        for one, other in zip(big.pages, small.pages, strict=True)
    ]
    return "\n".join([*lines, "", f"memory of `floe ui`: {big.mb:.0f} MB; with the small log {small.mb:.0f} MB"])


@click.command(help=__doc__)
@click.option("--log", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def main(log: Path, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        big_log().make(folder / "small", *SMALL)
        small = measure(browser, folder / "small", folder / "of-small")
        big = measure(browser, log, folder / "of-big")
    click.echo(json.dumps({"big": asdict(big), "small": asdict(small)}) if as_json else table(big, small))


if __name__ == "__main__":
    main()
