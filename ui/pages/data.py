"""Data: every table of the log, page by page, searched, as CSV; and how to open the file in another viewer."""

from __future__ import annotations

import io
import shlex
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import streamlit as st

from floe.store import FILE
from ui import tables
from ui.parts import csvfile
from ui.parts.live import EVERY_S, live, once
from ui.parts.text import plain, size
from ui.serving import config

ROWS = 200  # on a page
MOST_BYTES = 20_000_000  # that the browser is given: they stay in the page's memory while they are offered
BY_NUMBER = "row number"
AT, MADE = "data page begins", "data export"
NAMES = ("data table", "data column", "data operator", "data value", "data order", "data down")
TABLE, COLUMN, OPERATOR, VALUE, ORDER, DOWN = NAMES


def show() -> None:
    """Draw the page."""
    st.title("Data")
    once(_choose)


def _choose(db: sqlite3.Connection) -> None:
    found = {table.name: table for table in tables.tables(db)}
    if not found:
        st.info("The log has no table yet.")
        return
    first = list(found).index("updates") if "updates" in found else 0
    name = st.selectbox("Table", list(found), index=first, key=TABLE, on_change=_other_table)
    table = found[name]
    search = _search(table)
    if fault := tables.fault_of(db, table, search):
        st.session_state.pop(MADE, None)
        st.warning(plain(fault[0].upper() + fault[1:] + "."))
        return
    st.session_state.setdefault(AT, [])
    live(partial(_page, table=table, search=search), every_s=None if search.column else EVERY_S)
    _export(db, table, search)
    _elsewhere(table)


def _search(table: tables.Table) -> tables.Search:
    """What the reader has chosen; any change begins at the first page again."""
    where, how, what, order, way = st.columns([3, 2, 3, 4, 2], vertical_alignment="bottom")
    column = where.selectbox("Where", ["", *table.columns], key=COLUMN, on_change=_from_the_start, format_func=_or_all)
    operator = how.selectbox("is", list(tables.OPERATORS), key=OPERATOR, on_change=_from_the_start)
    value = what.text_input(
        "Value", key=VALUE, on_change=_from_the_start, disabled=operator in tables.WITHOUT_VALUE or not column
    )
    orders = {"": BY_NUMBER} | {name: ", ".join(columns) for name, columns in table.orders.items()}
    chosen = order.selectbox(
        "Sorted by", list(orders), key=ORDER, on_change=_from_the_start, format_func=lambda one: orders.get(one, one),
        help="the row number, which grows with time, or what the table has an index for",
    )  # fmt: skip
    down = way.toggle("Last first", value=True, key=DOWN, on_change=_from_the_start)
    waits = bool(column) and operator not in tables.WITHOUT_VALUE and not value
    search = tables.Search(column, operator, value, chosen, down)
    return replace(search, column="") if waits else search


def _or_all(column: str) -> str:
    return column or "(all rows)"


def _other_table() -> None:
    for name in (COLUMN, OPERATOR, VALUE, ORDER):
        st.session_state.pop(name, None)
    _from_the_start()


def _from_the_start() -> None:
    st.session_state[AT] = []


def _page(db: sqlite3.Connection, table: tables.Table, search: tables.Search) -> None:
    begins: list[int] = st.session_state[AT]
    found = tables.page(db, table, search, begins[-1] if begins else None, limit=ROWS)
    st.caption(plain(_told(table, search, found, len(begins))))
    st.dataframe(_cells(table, found.rows), key="data rows", height=480, hide_index=True, placeholder="NULL")
    with st.container(horizontal=True):
        st.button("Back", key="data back", icon=":material/chevron_left:", disabled=not begins, on_click=_back)
        st.button(
            "Search on" if not found.rows else "On", key="data on", icon=":material/chevron_right:",
            disabled=found.next is None, on_click=_on, args=(found.next,),
        )  # fmt: skip


def _told(table: tables.Table, search: tables.Search, found: tables.Page, page: int) -> str:
    if found.numbers is None:
        return f"{table.name} is empty."
    first, last = found.numbers
    told = f"Page {page + 1}: {len(found.rows):,} rows. {table.name} has the row numbers {first:,} to {last:,}"
    told += f"; {found.looked:,} of them were looked at for this page." if search.column and found.looked else "."
    if search.order and found.next is None and len(found.rows) == ROWS:
        told += f" In this order no more than {tables.WINDOW:,} rows are shown: search, or export."
    return told + " Times are UTC, as in the log."


def _cells(table: tables.Table, rows: Sequence[tables.Row]) -> pa.Table:
    return pa.table({name: _column([row[place] for row in rows]) for place, name in enumerate(table.columns)})


def _column(values: Sequence[tables.Value]) -> pa.Array:
    """Numbers as numbers where a column has nothing else, bytes as hexadecimal digits, all else as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array(values, pa.float64())
    return pa.array([None if one is None else _text(one) for one in values], pa.string())


def _text(value: tables.Value) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _on(begin: int) -> None:
    st.session_state[AT] = [*st.session_state[AT], begin]


def _back() -> None:
    st.session_state[AT] = st.session_state[AT][:-1]


def _export(db: sqlite3.Connection, table: tables.Table, search: tables.Search) -> None:
    """Made by a click, saved by another: what Streamlit makes at the moment of saving, a live part takes away again."""
    st.subheader("Export")
    harmless = st.toggle(
        "For a spreadsheet", key="data harmless",
        help="text that begins with =, +, - or @ gets an apostrophe, so that it is not taken for a formula; what could "
        "steer a terminal becomes an escape. Without: every value exactly as it is in the table.",
    )  # fmt: skip
    wanted = (table.name, search, harmless)
    if st.button("Make a CSV", key="data make", icon=":material/csv:"):
        st.session_state.pop(MADE, None)  # before the other is made: there is one at a time
        st.session_state[MADE] = wanted, *_csv(db, table, search, harmless=harmless)
    made: tuple[object, bytes, csvfile.Written] | None = st.session_state.get(MADE)
    if made is not None and made[0] == wanted:
        cut = "" if made[2].whole else ", and no more: that is the limit here"
        label = plain(f"Save {table.name}.csv: {made[2].rows:,} rows, {size(len(made[1]))}{cut}")
        st.download_button(
            label, made[1], file_name=f"{table.name}.csv", mime="text/csv", key="data download", on_click="ignore",
            icon=":material/download:",
        )  # fmt: skip
    else:
        st.session_state.pop(MADE, None)
    st.caption(
        f"What the search above finds, in its order, as of the click; NULL is empty. At most {size(MOST_BYTES)} come "
        "this way, and it ends with a whole row. The whole table, on the aggregator's machine:"
    )
    file = _shell(table.name + ".csv")
    st.code(f"sqlite-utils rows {_shell(_log())} {_shell(table.name)} --csv > {file}", language=None)


def _csv(
    db: sqlite3.Connection, table: tables.Table, search: tables.Search, *, harmless: bool
) -> tuple[bytes, csvfile.Written]:
    """The file, and what is in it."""
    out = io.BytesIO()
    written = csvfile.write(
        out, list(table.columns), tables.export(db, table, search), harmless=harmless, most=MOST_BYTES
    )
    return out.getvalue(), written


def _elsewhere(table: tables.Table) -> None:
    log = _shell(_log())
    with st.expander("Open the file in another viewer"):
        st.text(
            "The log is an SQLite database. Others may read it while the aggregator writes; open it for reading only. "
            "To take a copy along, use .backup: what is newest stands in floe.sqlite-wal, which a plain copy of "
            "floe.sqlite leaves behind."
        )
        st.code(
            f"sqlite3 -readonly {log} .tables\n"
            f"sqlite-utils tables {log} --counts --table\n"
            f"sqlitebrowser --read-only {log}\n"
            f"sqlite3 -readonly {log} '.backup copy.sqlite'",
            language=None,
        )
        if hidden := sorted(column for name, column in tables.HIDDEN if name == table.name):
            st.text(f"Not shown here: {', '.join(hidden)}.")


def _log() -> Path:
    return config().path(config().paths.log) / FILE


def _shell(word: object) -> str:
    return shlex.quote(str(word))
