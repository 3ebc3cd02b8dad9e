"""Any table of the log, page by page: nothing left out, nothing twice, no table walked through, no name made SQL."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from helpers.big import small_log
from streamlit.testing.v1 import AppTest

from floe.settings import Config, Paths
from ui import tables
from ui.parts import csvfile
from ui.serving import serve_for
from ui.tables import Search, Table

ALL_ROWS = Search()


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{small_log(tmp_path_factory)}?mode=ro", uri=True)) as connection:
        yield connection


def table(db: sqlite3.Connection, name: str) -> Table:
    return next(one for one in tables.tables(db) if one.name == name)


def walked(db: sqlite3.Connection, of: Table, search: Search, limit: int = 97) -> list[tables.Row]:
    found, begin = list[tables.Row](), None
    while True:
        page = tables.page(db, of, search, begin, limit=limit)
        assert len(page.rows) <= limit
        found += page.rows
        if page.next is None:
            return found
        begin = page.next


def test_all_tables_are_there_but_none_of_sqlite_s_own(db: sqlite3.Connection) -> None:
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {one.name for one in tables.tables(db)} == {name for name in names if not name.startswith("sqlite_")}


def test_page_by_page_every_row_is_seen_once_in_every_order(db: sqlite3.Connection) -> None:
    for one in tables.tables(db):
        columns = ", ".join(f'"{name}"' for name in one.columns)
        for order in ("", *one.orders):
            along = ", ".join(one.orders[order]) if order else "rowid"
            expected = db.execute(f"SELECT {columns} FROM {one.name} ORDER BY {along}").fetchall()
            found = walked(db, one, Search(order=order, down=False))
            assert len(found) == len(expected)
            assert sorted(map(repr, found)) == sorted(map(repr, expected))
            if not order:
                assert found == expected
                assert walked(db, one, Search(down=True)) == expected[::-1]


FOUND = {
    Search("device", "=", "device-00007"): "device = 'device-00007'",
    Search("round", ">=", "18"): "round >= 18",
    Search("round", "<", "2.5"): "round < 2.5",
    Search("outcome", "is not", "accepted"): "outcome != 'accepted'",
    Search("detail", "contains", "ROUND"): "detail LIKE '%round%'",
    Search("merged", "is empty"): "merged IS NULL",
    Search("accuracy", "is not empty"): "accuracy IS NOT NULL",
    Search("round", "=", "1' OR '1'='1"): "0",
    Search("id", "<=", "50"): "id <= 50",
    Search("id", ">", "900"): "id > 900",
    Search("id", "=", "17", down=False): "id = 17",
    Search("id", "is not", "17"): "id != 17",
    Search("id", "<", "x"): "id < 'x'",
    Search("id", "=", "99999999999999999999"): "0",
    Search("lineage", "=", "main", order="updates_by_phase"): "1",
}


@pytest.mark.parametrize("window", [60, tables.WINDOW])
@pytest.mark.parametrize("search", FOUND, ids=repr)
def test_a_search_finds_what_sql_finds(
    db: sqlite3.Connection, search: Search, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "WINDOW", 10**9 if search.order else window)
    of = table(db, "updates")
    columns = ", ".join(of.columns)
    expected = db.execute(f"SELECT {columns} FROM updates WHERE {FOUND[search]}").fetchall()
    assert sorted(map(repr, walked(db, of, search))) == sorted(map(repr, expected))
    assert sorted(map(repr, tables.export(db, of, search).fetchall())) == sorted(map(repr, expected))


def test_no_search_walks_through_a_table_or_sorts_it(db: sqlite3.Connection) -> None:
    of = table(db, "updates")
    searches = [*FOUND, *(Search(order=order) for order in of.orders), ALL_ROWS]
    values = {"value": "", "low": 1, "high": 2, "limit": 1, "skip": 0}
    for search in searches:
        plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + tables.statement(of, search), values)]
        assert len(plan) == 1, plan
        assert plan[0].startswith("SEARCH updates USING") or (search.order and "USING INDEX" in plan[0]), plan


def test_a_search_by_row_number_looks_at_those_alone(db: sqlite3.Connection) -> None:
    of = table(db, "updates")
    assert tables.page(db, of, Search("id", "<", "10")).looked == 9
    assert tables.page(db, of, Search("id", "=", "0")) == tables.Page(
        (), None, tables.page(db, of, ALL_ROWS).numbers, 0
    )


def test_a_page_looks_at_no_more_rows_than_its_window(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "WINDOW", 10)
    page = tables.page(db, table(db, "updates"), Search("detail", "=", "nobody said this"))
    assert page.numbers is not None
    assert (page.rows, page.looked, page.next) == ((), 10, page.numbers[1] - 10)
    fault = tables.fault_of(db, table(db, "updates"), Search("detail", "=", "x", order="updates_by_phase"))
    assert fault == "in this order a table as large as this can be searched by lineage only"
    assert not tables.fault_of(db, table(db, "updates"), Search("lineage", "=", "x", order="updates_by_phase"))


def test_names_that_a_table_does_not_have_are_no_sql(db: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="no column"):
        tables.page(db, table(db, "devices"), Search('device" = device OR "device'))
    with pytest.raises(ValueError, match="no operator"):
        tables.page(db, table(db, "devices"), Search("device", "IS NOT NULL OR"))
    with pytest.raises(KeyError):
        tables.page(db, table(db, "devices"), Search(order='x"; DROP TABLE devices'))


def test_the_hash_of_an_invitation_is_neither_shown_nor_searched(tmp_path: Path, db: sqlite3.Connection) -> None:
    invitations = table(db, "invitations")
    assert "token" not in invitations.columns
    assert invitations.orders == {}
    assert set(db.execute("SELECT name FROM pragma_table_info('invitations')").fetchall()) >= {("token",)}


def test_a_table_that_is_odd_is_shown_too(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "odd.sqlite")) as odd:
        odd.execute('CREATE TABLE "a ""b" ("select" TEXT, "x y" BLOB, n)')
        odd.execute("""INSERT INTO "a ""b" VALUES ('1', x'00ff', NULL), ('2', NULL, 1.5)""")
        odd.execute("CREATE TABLE empty (a INTEGER PRIMARY KEY)")
        found = {one.name: one for one in tables.tables(odd)}
        assert tables.page(odd, found['a "b'], Search("select", "=", "1")).rows == (("1", b"\x00\xff", None),)
        assert tables.page(odd, found["empty"], ALL_ROWS) == tables.Page(())


def test_an_export_equals_the_table_in_every_value(db: sqlite3.Connection) -> None:
    of = table(db, "updates")
    out = io.BytesIO()
    csvfile.write(out, list(of.columns), tables.export(db, of, Search(down=False)))
    header, *rows = csv.reader(io.StringIO(out.getvalue().decode(), newline=""))
    expected = db.execute("SELECT * FROM updates ORDER BY id").fetchall()
    assert header == list(of.columns)
    assert rows == [["" if value is None else str(value) for value in row] for row in expected]
    place = list(of.columns).index("accuracy")
    assert [float(row[place]) for row in rows if row[place]] == [
        row[place] for row in expected if row[place] is not None
    ]


@pytest.mark.parametrize(("most", "rows", "whole"), [(0, 3, True), (1, 0, False), (9, 1, False), (21, 3, True)])
def test_an_export_ends_with_a_whole_row_where_it_has_its_bytes(most: int, rows: int, whole: bool) -> None:
    out = io.BytesIO()
    written = csvfile.write(out, ["a"], [("ä" * 3,)] * 3, most=most)
    assert (written, out.getvalue().decode()) == (csvfile.Written(rows, whole), "a\r\n" + "äää\r\n" * rows)


def test_a_page_keeps_one_export_and_none_of_another_search(small: Path) -> None:
    drawn = data_page(small)
    drawn.button(key="data make").click().run()
    assert drawn.session_state["data export"][0][0] == "updates"
    drawn.selectbox(key="data column").select("id").run()
    assert "data export" in drawn.session_state, "without a value it is the same search"
    drawn.text_input(key="data value").input("1").run()
    assert "data export" not in drawn.session_state
    drawn.button(key="data make").click().run()
    drawn.selectbox(key="data table").select("devices").run()
    assert "data export" not in drawn.session_state


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(small_log(tmp_path_factory)).parent


def data_page(log: Path) -> AppTest:
    def script() -> None:
        from ui.pages import data

        data.show()

    serve_for(Config(folder=log, paths=Paths(log=str(log))))
    drawn = AppTest.from_function(script, default_timeout=60).run()
    assert not drawn.exception, drawn.exception
    return drawn


SAID = {
    "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@a": "'@a", "\x1b[2J": "\\x1b[2J", "a\r\nb": "a\\r\\nb",
    'a,"b"': 'a,"b"',
}  # fmt: skip


@pytest.mark.parametrize("text", SAID)
def test_text_is_itself_in_a_csv_or_harmless_in_a_spreadsheet(text: str) -> None:
    for harmless, expected in ((False, text), (True, SAID[text])):
        out = io.BytesIO()
        csvfile.write(out, ["a", "b", "c", "d"], [(text, -1.5, None, b"\x01\xff")], harmless=harmless)
        _, row = csv.reader(io.StringIO(out.getvalue().decode(), newline=""))
        assert row == [expected, "-1.5", "", "01ff"]
        assert not out.closed
