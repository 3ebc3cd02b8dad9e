"""Events and the devices' lines as one stream: every page against what plain SQL over both tables says."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest
from helpers.big import small_log
from hypothesis import example, given
from hypothesis import strategies as st

from floe.migrations import migrations
from floe.sqlite import Database
from floe.store import FILE, before, open_log
from ui.queries import events
from ui.queries.events import Cursor, Entry, Filter, Level, Page, newest, page, since

T = "2026-11-21T10:00:{:06.3f}Z"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_log(tmp_path / FILE).conn) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{small_log(tmp_path_factory)}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def event(db: sqlite3.Connection, second: float, text: str, level: str = "info", device: str | None = None) -> None:
    sql = "INSERT INTO events (time, level, kind, device, text) VALUES (?, ?, 'opened', ?, ?)"
    db.execute(sql, (T.format(second), level, device, text))


def said(db: sqlite3.Connection, second: float, text: str, level: str = "info", device: str = "a") -> None:
    heard(db, T.format(second), T.format(second), text, level, device)


def heard(db: sqlite3.Connection, time: str, said_at: str, text: str, level: str = "info", device: str = "a") -> None:
    sql = "INSERT INTO journal (time, said_at, device, level, text) VALUES (?, ?, ?, ?, ?)"
    db.execute(sql, (time, said_at, device, level, text))


def texts(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.text for entry in entries]


def all_pages(db: sqlite3.Connection, filter_: Filter, limit: int) -> list[Page]:
    pages = [page(db, filter_, limit=limit)]
    while (place := pages[-1].next) is not None:
        pages.append(page(db, filter_, before=place, limit=limit))
        assert len(pages) < 10_000
    return pages


def expected(db: sqlite3.Connection, filter_: Filter) -> list[tuple[str, int]]:
    """What fits, by another way: everything is read, and looked at in Python."""
    rows = [("event", *row) for row in db.execute("SELECT id, time, level, kind, device, text FROM events")]
    rows += [("journal", *row) for row in db.execute("SELECT id, time, level, 'journal', device, text FROM journal")]
    levels = get_args(Level)[get_args(Level).index(filter_.level) :]
    return [
        (table, id_)
        for table, id_, _, level, kind, device, text in rows
        if level in levels and filter_.device in ("", device) and filter_.kind in ("", kind)
        and filter_.text.lower() in text.lower()
    ]  # fmt: skip


FILTERS = [
    Filter(), Filter("warning"), Filter("error"), Filter(device="device-00003"), Filter("warning", "device-00003"),
    Filter(kind="opened"), Filter(kind="journal"), Filter("error", kind="journal"), Filter(text="SCRIPT"),
    Filter("warning", text="few rows"), Filter(text="%"), Filter(text="nobody said this"), Filter(device="nobody"),
    Filter("warning", kind="rejected", text="x"), Filter("error", "device-00001", "journal", "x"),
]  # fmt: skip


@pytest.mark.parametrize("window", [200_000, 997])
@pytest.mark.parametrize("filter_", FILTERS, ids=str)
def test_all_pages_together_hold_what_fits_each_once(
    big: sqlite3.Connection, filter_: Filter, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WINDOW", window)
    found = [entry for shown in all_pages(big, filter_, 700) for entry in shown.entries]
    keys = [("journal" if entry.kind == "journal" else "event", entry.id) for entry in found]
    assert sorted(keys) == sorted(expected(big, filter_))
    assert [entry.time for entry in found] == sorted((entry.time for entry in found), reverse=True)


def test_both_tables_are_one_stream_by_time_newest_first(db: sqlite3.Connection) -> None:
    event(db, 1, "opened")
    said(db, 2, "training")
    event(db, 3, "closed")
    found = page(db)
    assert texts(found.entries) == ["closed", "training", "opened"]
    assert (found.next, found.looked_to) == (None, None)


def test_a_clock_that_was_set_back_changes_no_tables_order_and_loses_nothing(db: sqlite3.Connection) -> None:
    for second in (50, 51, 7, 8, 52):
        event(db, second, f"e{second}")
        said(db, second + 0.5, f"j{second}")
    shown = [text for found in all_pages(db, Filter(), 3) for text in texts(found.entries)]
    assert [text for text in shown if text[0] == "e"] == ["e52", "e8", "e7", "e51", "e50"]
    assert [text for text in shown if text[0] == "j"] == ["j52", "j8", "j7", "j51", "j50"]


def test_a_device_that_was_away_for_years_hides_no_other_line(db: sqlite3.Connection) -> None:
    for second in range(6):
        event(db, second, f"e{second}")
        heard(db, T.format(second + 0.5), "1995-01-01T00:00:00.000Z" if second == 5 else T.format(second), f"j{second}")
    found = page(db, limit=4).entries
    assert texts(found) == ["j5", "e5", "j4", "e4"]
    assert found[0].said_at == "1995-01-01T00:00:00.000Z"


lines = st.tuples(st.booleans(), st.integers(0, 3), st.floats(0, 1e9))  # of a device, ms since the one before, its age


@given(st.lists(lines, max_size=60), st.integers(1, 9), st.integers(0, 60))
@example([(True, 1, 1e9), (False, 1, 0.0), (True, 1, 0.0)] * 5, 2, 4)
def test_whatever_devices_say_of_the_time_all_is_shown_once_in_the_order_of_arrival(
    came: list[tuple[bool, int, float]], limit: int, first: int
) -> None:
    log = Database(memory=True)
    migrations.apply(log)
    with closing(log.conn) as db:
        db.row_factory = sqlite3.Row
        moment = write(db, 0, came[:first])
        shown, place = page(db, limit=limit).entries, newest(db)
        write(db, moment, came[first:])
        whole = [entry for found in all_pages(db, Filter(), limit) for entry in found.entries]
        assert sorted((entry.kind, entry.id) for entry in whole) == sorted(
            [("opened", row["id"]) for row in db.execute("SELECT id FROM events")]
            + [("journal", row["id"]) for row in db.execute("SELECT id FROM journal")]
        )
        assert [entry.time for entry in whole] == sorted((entry.time for entry in whole), reverse=True)
        live = events.with_new(since(db, place)[0], shown)
        assert list(live) == whole[: len(live)], "a page that is live is the one that is read anew"


def write(db: sqlite3.Connection, moment: int, came: list[tuple[bool, int, float]]) -> int:
    """Lines of devices, and events, so many milliseconds after each other; when the last of them came."""
    for own, after, age in came:
        moment += after
        time = T.format(moment / 1000)
        if own:
            heard(db, time, before(time, age), "said")
        else:
            event(db, moment / 1000, "seen")
    return moment


def test_a_search_says_how_far_it_looked_and_goes_on_from_there(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WINDOW", 10)
    event(db, 0, "needle")
    for second in range(1, 31):
        event(db, second, "hay")
    pages = all_pages(db, Filter(text="needle"), 5)
    assert [texts(found.entries) for found in pages] == [[], [], [], ["needle"]]
    assert [found.looked_to for found in pages] == [T.format(20), T.format(10), T.format(0), None]


def test_what_is_new_comes_oldest_first_and_once(db: sqlite3.Connection) -> None:
    event(db, 1, "old")
    place = newest(db)
    said(db, 3, "second")
    event(db, 2, "first")
    found, place = since(db, place)
    assert texts(found) == ["first", "second"]
    assert since(db, place) == ((), place)


def test_what_does_not_fit_is_passed_over(db: sqlite3.Connection) -> None:
    event(db, 1, "fine", device="a")
    event(db, 2, "bad", "warning", "b")
    said(db, 3, "worse", "error", "b")
    found, place = since(db, Cursor(0, 0), Filter("warning", "b"))
    assert texts(found) == ["bad", "worse"]
    assert place == newest(db)


def test_more_than_fits_at_once_comes_the_next_time(db: sqlite3.Connection) -> None:
    for second in range(5):
        event(db, second, str(second))
    place, seen = Cursor(0, 0), []
    while (found := since(db, place, limit=2))[0]:
        seen += texts(found[0])
        place = found[1]
    assert seen == ["0", "1", "2", "3", "4"]


def test_a_log_that_was_begun_anew_is_read_from_its_beginning(db: sqlite3.Connection) -> None:
    event(db, 1, "again")
    assert texts(since(db, Cursor(500, 500))[0]) == ["again"]


def test_text_of_a_filter_is_never_sql(db: sqlite3.Connection) -> None:
    event(db, 1, "it's 100 % \" fine")
    assert len(page(db, Filter(text="it's 100 % \"")).entries) == 1
    assert page(db, Filter(text="' OR 1=1 --")).entries == ()
