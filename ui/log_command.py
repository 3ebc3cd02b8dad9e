"""`floe log`: the aggregator's events and the devices' own lines in a terminal, oldest first."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import get_args

import click

from floe.cli import config_options
from floe.service import log as tell
from floe.service import stopping
from floe.settings import Config
from floe.terminal import printable
from ui.queries.events import Cursor, Entry, Filter, Level, newest, page, since
from ui.reading import Reading, read
from ui.times import local

POLL_S = 0.4
MOST = 100_000
BATCH = 1000
Found = tuple[tuple[Entry, ...], Cursor]


@click.command("log")
@config_options(lineage="rounds.lineage")
@click.option("--follow", "-f", is_flag=True, help="go on, and print what comes")
@click.option(
    "--level", type=click.Choice(get_args(Level)), default="info", show_default=True, help="this bad or worse"
)
@click.option("--device", default="", metavar="NAME", help="of this device only")
@click.option("--kind", default="", metavar="KIND", help="events of this kind only (`journal`: what devices say)")
@click.option("--grep", "text", default="", metavar="TEXT", help="with this in the text; A to Z in either case")
@click.option("--lines", type=click.IntRange(0, MOST), default=50, show_default=True, metavar="N", help="the newest N")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line, times UTC")
def log(
    config: Config, follow: bool, level: Level, device: str, kind: str, text: str, lines: int, as_json: bool
) -> None:
    """Print what the aggregator recorded and what devices said of themselves, in order, oldest first.

    Reads the aggregator's log, so it is for the machine that has that. With --follow it waits for a log that is not
    there yet, and goes on when the aggregator is started again.
    """
    filter_ = Filter(level, device, kind, text)
    if follow:
        sys.exit(_follow(config, filter_, lines, as_json=as_json))
    (entries, _), looked_to = read(config, lambda db: _last(db, filter_, lines)).checked()
    _print(entries, as_json=as_json)
    if looked_to and len(entries) < lines:
        tell(f"looked back to {local(looked_to)}; what is older was not searched: name a --device to see all of its")


def _last(db: sqlite3.Connection, filter_: Filter, lines: int) -> tuple[Found, str | None]:
    if not lines:
        return ((), newest(db)), None
    found = page(db, filter_, limit=lines)
    return (found.entries[::-1], newest(db)), found.looked_to


def _follow(config: Config, filter_: Filter, lines: int, *, as_json: bool) -> int:
    """Until it is interrupted; the exit code. What stands in the way is told when it changes."""
    place: Cursor | None = None
    told = ""
    with stopping() as stop:
        while not stop():
            found = read(config, partial(_next, place=place, filter_=filter_, lines=lines))
            told = _tell(found, told)
            entries: tuple[Entry, ...] = ()
            if found.answer is not None:
                entries, place = found.answer
                _print(entries, as_json=as_json)
            if len(entries) < BATCH:
                time.sleep(POLL_S)
    return stop.code


def _next(db: sqlite3.Connection, *, place: Cursor | None, filter_: Filter, lines: int) -> Found:
    return _last(db, filter_, lines)[0] if place is None else since(db, place, filter_, limit=BATCH)


def _tell(found: Reading[Found], told: str) -> str:
    trouble = str(found.trouble or "")
    if trouble != told:
        tell(f"{found.path}: {trouble}; waiting" if trouble else f"{found.path}: it can be read")
    return trouble


def _print(entries: Iterable[Entry], *, as_json: bool) -> None:
    for entry in entries:
        click.echo(json.dumps(asdict(entry)) if as_json else line(entry))
    sys.stdout.flush()


def line(entry: Entry) -> str:
    """One line for a terminal. The text of an event names its device already; a device's own line begins with it."""
    who = f"{entry.device} says: " if entry.kind == "journal" else ""
    return printable(f"{local(entry.said_at)}  {entry.level:7}  {who}{entry.text}")
