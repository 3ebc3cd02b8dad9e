"""Any table of the log, page by page: what it has, in which orders it can be read, and the rows that a search finds.

Names of tables, columns and indexes are those of the schema, values are bound: nothing of a reader's becomes SQL. No
page looks at more than `WINDOW` rows, or at what an index finds; where a search has to go further, it says how far it
came, and the next page goes on from there.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

WINDOW = 200_000  # rows that one page looks through

TABLES = """
SELECT name FROM sqlite_master
WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' AND sql NOT LIKE '%WITHOUT ROWID%' ORDER BY name
"""

COLUMNS = "SELECT name, upper(type), pk FROM pragma_table_info(:name) ORDER BY cid"

INDEXES = "SELECT name FROM pragma_index_list(:name) WHERE NOT partial ORDER BY name"

INDEXED = "SELECT name FROM pragma_index_info(:name) ORDER BY seqno"

# What nobody reads who watches: the hash of the secret that lets a device ask to be let in.
HIDDEN = frozenset({("invitations", "token")})

OPERATORS = {
    "=": "{} = :value",
    "is not": "{} IS NOT :value",
    "<": "{} < :value",
    "<=": "{} <= :value",
    ">": "{} > :value",
    ">=": "{} >= :value",
    "contains": "instr(lower({}), lower(:value)) > 0",
    "is empty": "{} IS NULL",
    "is not empty": "{} IS NOT NULL",
}
WITHOUT_VALUE = frozenset({"is empty", "is not empty"})
ENDS = (-(2**63), 2**63 - 1)  # of all row numbers
Value = str | int | float | bytes | None
Row = tuple[Value, ...]


@dataclass(frozen=True)
class Table:
    """A table as it can be shown. `columns`: their types by name, in order. `number`: the column that is the row's
    number, empty if it has none of its own. `indexes`: the columns of each index, by its name."""

    name: str
    columns: dict[str, str]
    number: str
    indexes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def orders(self) -> dict[str, tuple[str, ...]]:
        """The indexes that rows can be read along: those of columns that are shown."""
        return {name: columns for name, columns in self.indexes.items() if set(columns) <= set(self.columns)}


@dataclass(frozen=True)
class Search:
    """Rows whose `column` is as `operator` (of `OPERATORS`) and `value` say, without a column all; along an index of
    the table (`order`), or along the rows' numbers; `down`: from the greatest."""

    column: str = ""
    operator: str = "="
    value: str = ""
    order: str = ""
    down: bool = True


@dataclass(frozen=True)
class Page:
    """Rows in the order asked for. `next`: what to begin the next page with, None: there is none. `numbers`: the least
    and the greatest row number of the table, None: it is empty. `looked`: how many row numbers were looked at."""

    rows: tuple[Row, ...]
    next: int | None = None
    numbers: tuple[int, int] | None = None
    looked: int = 0


def tables(db: sqlite3.Connection) -> tuple[Table, ...]:
    """All tables of the log, by name; but none WITHOUT ROWID, which Floe does not have."""
    return tuple(_table(db, name) for (name,) in db.execute(TABLES).fetchall())


def fault_of(db: sqlite3.Connection, table: Table, search: Search) -> str:
    """Why a search would have to read through a large table, "" if it has not."""
    numbers = _numbers(db, table)
    leading = table.orders[search.order][0] if search.order else ""
    if not search.order or not search.column or search.column == leading or numbers is None:
        return ""
    if numbers[1] - numbers[0] < WINDOW:
        return ""
    return f"in this order a table as large as this can be searched by {leading} only"


def page(db: sqlite3.Connection, table: Table, search: Search, begin: int | None = None, *, limit: int = 200) -> Page:
    """At most `limit` rows, from what the page before said is `next`. Raises as `statement`."""
    numbers = _numbers(db, table)
    if numbers is None:
        return Page(())
    if search.order:
        return _along_index(db, table, search, begin or 0, limit, numbers)
    low, high = _range(table, search)
    first, last = max(numbers[0], low), min(numbers[1], high)
    start = begin if begin is not None else last if search.down else first
    bounded = not _finds_by_index(table, search)
    if search.down:
        low, high = max(start - WINDOW + 1, first) if bounded else first, start
    else:
        low, high = start, min(start + WINDOW - 1, last) if bounded else last
    sql = f"{statement(table, search, number=True)} LIMIT :limit"
    values = {"value": _value(table, search), "low": low, "high": high, "limit": limit + 1}
    found = db.execute(sql, values).fetchall()
    rows = tuple(tuple(row)[1:] for row in found[:limit])
    after = low - 1 if search.down else high + 1
    more = found[limit][0] if len(found) > limit else after if first <= after <= last else None
    return Page(rows, more, numbers, max(high - low + 1, 0))


def export(db: sqlite3.Connection, table: Table, search: Search) -> sqlite3.Cursor:
    """The rows that a search finds, one after the other, with as much of the table looked through as is asked for."""
    low, high = _range(table, search)
    return db.execute(statement(table, search), {"value": _value(table, search), "low": low, "high": high})


def _along_index(
    db: sqlite3.Connection, table: Table, search: Search, skip: int, limit: int, numbers: tuple[int, int]
) -> Page:
    # An index may hold NULL, beyond which no comparison leads: so rows are skipped, but never millions of them.
    sql = f"{statement(table, search)} LIMIT :limit OFFSET :skip"
    found = db.execute(sql, {"value": _value(table, search), "limit": limit + 1, "skip": skip}).fetchall()
    more = skip + limit if len(found) > limit and skip + limit < WINDOW else None
    return Page(tuple(tuple(row) for row in found[:limit]), more, numbers)


def _table(db: sqlite3.Connection, name: str) -> Table:
    columns = db.execute(COLUMNS, {"name": name}).fetchall()
    keys = [(column, kind) for column, kind, pk in columns if pk]
    number = keys[0][0] if len(keys) == 1 and keys[0][1] == "INTEGER" else ""
    shown = {column: kind for column, kind, _ in columns if (name, column) not in HIDDEN}
    indexes = {
        index: tuple(column for (column,) in db.execute(INDEXED, {"name": index}))
        for (index,) in db.execute(INDEXES, {"name": name}).fetchall()
    }
    return Table(name, shown, number, indexes)


def _finds_by_index(table: Table, search: Search) -> bool:
    """Whether rows are found in the order of their numbers without looking at others."""
    if not search.column or _range(table, search) != ENDS:
        return True
    ready = {columns[0] for columns in table.indexes.values() if columns[1:] in ((), (table.number,))}
    return search.operator == "=" and search.column in ready


def _range(table: Table, search: Search) -> tuple[int, int]:
    """The row numbers that a search by number leaves: a condition on top of the page's own would not be used."""
    value = _value(table, search)
    if search.order or not search.column or search.column != table.number or not isinstance(value, int):
        return ENDS
    ranges = {"=": (value, value), "<": (ENDS[0], value - 1), "<=": (ENDS[0], value)}
    ranges |= {">": (value + 1, ENDS[1]), ">=": (value, ENDS[1])}
    low, high = ranges.get(search.operator, ENDS)
    return max(low, ENDS[0]), min(high, ENDS[1])


def _numbers(db: sqlite3.Connection, table: Table) -> tuple[int, int] | None:
    name = _quoted(table.name)
    ends = [db.execute(f"SELECT {end}(_rowid_) FROM {name}").fetchone()[0] for end in ("min", "max")]  # noqa: S608
    return None if ends[0] is None else (ends[0], ends[1])


def statement(table: Table, search: Search, *, number: bool = False) -> str:
    """The SQL of a search but its limit; `number`: the row's number is its first column.

    Parameters: `value`, and along row numbers `low` and `high`. Raises `ValueError`, `KeyError` for what `table` has
    not.
    """
    columns = ", ".join((["_rowid_"] if number else []) + [_quoted(column) for column in table.columns])
    source, along = _quoted(table.name), ["_rowid_"]
    if search.order:
        along = [_quoted(column) for column in table.orders[search.order]]
        source += f" INDEXED BY {_quoted(search.order)}"
    conditions = [_condition(table, search)] if search.column else []
    conditions += [] if search.order else ["_rowid_ BETWEEN :low AND :high"]
    order = ", ".join(f"{column} DESC" if search.down else column for column in along)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {columns} FROM {source}{where} ORDER BY {order}"  # noqa: S608 (names of the schema, quoted)


def _condition(table: Table, search: Search) -> str:
    if search.column not in table.columns or search.operator not in OPERATORS:
        raise ValueError(f"{table.name}: no column {search.column!r}, or no operator {search.operator!r}")
    # The plus sign keeps SQLite from an index whose rows it would have to sort (sqlite.org/optoverview.html, 3).
    plus = "" if search.order or _finds_by_index(table, search) else "+"
    return OPERATORS[search.operator].format(plus + _quoted(search.column))


def _value(table: Table, search: Search) -> Value:
    """What a reader has typed, as a number where the column holds numbers and it is one."""
    if search.operator == "contains" or table.columns.get(search.column) not in ("INTEGER", "REAL"):
        return search.value
    for kind in (int, float):
        try:
            number = kind(search.value)
        except ValueError:
            continue
        if isinstance(number, float) or abs(number) < 2**63:
            return number
    return search.value


def _quoted(name: str) -> str:
    """A name as SQL has it: the one way in for names, which are the schema's."""
    return '"' + name.replace('"', '""') + '"'
