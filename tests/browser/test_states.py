"""What every page says when there is nothing to show, or when it cannot be read; and that it recovers by itself."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from helpers.browser import Tab
from helpers.federation import Federation
from helpers.page import Served

from floe.store import FILE
from ui.frame import PAGES

OpenTab = Callable[..., Tab]


@pytest.fixture(scope="module")
def closed(finished: Federation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation of which only the log is left: nobody writes it."""
    folder = tmp_path_factory.mktemp("closed")
    federation = Federation(folder, finished.port)
    federation.configure()
    (folder / "log").mkdir()
    with closing(sqlite3.connect(finished.folder / "log" / FILE)) as old, closing(connect(federation)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode = delete")
    yield federation
    federation.close()


@pytest.fixture(scope="module")
def served_closed(closed: Federation) -> Served:
    """Its page."""
    return Served(closed)


def connect(federation: Federation) -> sqlite3.Connection:
    return sqlite3.connect(federation.folder / "log" / FILE, isolation_level=None)


@contextmanager
def missing(log: Path) -> Iterator[None]:
    aside = log.rename(log.with_name("aside"))
    yield
    aside.rename(log)


@contextmanager
def locked(log: Path) -> Iterator[None]:
    with closing(sqlite3.connect(log, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def damaged(log: Path) -> Iterator[None]:
    whole = shutil.copy(log, log.with_name("whole"))
    with log.open("r+b") as file:
        file.write(bytes(200))
    yield
    Path(whole).replace(log)


@contextmanager
def newer(log: Path) -> Iterator[None]:
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        db.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('floe', 'm999', '')")
        yield
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm999'")


STATES = {missing: "no log yet", locked: "locked|holds the log", damaged: "damaged", newer: "newer Floe"}


@pytest.mark.parametrize("title", [title for title, _, _ in PAGES])
def test_an_open_page_says_what_is_wrong_with_the_log_and_recovers_by_itself(
    title: str, closed: Federation, served_closed: Served, open_tab: OpenTab
) -> None:
    tab = open_tab(served_closed).open("" if title == "Overview" else title.lower())
    for state, words in STATES.items():
        with state(closed.folder / "log" / FILE):
            tab.says(words)
        tab.says_not(words)
    tab.drawn()
