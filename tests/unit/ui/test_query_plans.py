"""Every statement of `ui.queries` finds its rows by an index or by id: read from SQLite's own plan on a made log."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType

import pytest
from helpers.big import small_log

import ui.queries
import ui.queries.standing

BIG = ("updates", "events", "journal", "vitals")

# "module.CONSTANT" -> why it may walk through a big table all the same.
ALLOWED: dict[str, str] = {}


class _Anything(dict[str, object]):
    """Gives a value for every parameter."""

    def __missing__(self, name: str) -> object:
        return 1


def modules() -> list[ModuleType]:
    return [importlib.import_module(f"ui.queries.{found.name}") for found in pkgutil.iter_modules(ui.queries.__path__)]


def statements() -> dict[str, str]:
    found = {}
    for module in modules():
        for name, value in vars(module).items():
            if (
                name.isupper()
                and isinstance(value, str)
                and value.split()[:1]
                and value.split()[0] in ("SELECT", "WITH")
            ):
                found[f"{module.__name__.removeprefix('ui.queries.')}.{name}"] = value
    return found


def faults(db: sqlite3.Connection, sql: str) -> list[str]:
    """The steps of a plan that the rule in `ui/queries/__init__.py` refuses."""
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", _Anything())]
    names = dict(re.findall(rf"\b({'|'.join(BIG)})(?: (?:AS )?(?!WHERE|ORDER|ON|LEFT|JOIN|INDEXED|LIMIT)(\w+))?", sql))
    big = {*names, *names.values()} - {""}
    bad = [step for step in plan if (found := re.match(r"SCAN (\w+)", step)) and found[1] in big]
    if len(plan) == 1 and "WHERE" not in sql and re.search(r"LIMIT (:\w+|\d+)\s*$", sql):
        bad = []
    sorts = [step for step in plan if "TEMP B-TREE" in step and big and set(names)]
    return [*bad, *sorts]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = small_log(tmp_path_factory)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        yield connection


def test_statements_are_found() -> None:
    assert {"events.EVENTS", "standing.STANDING", "vitals.HISTORY", "fleet.DEVICES"} <= set(statements())


@pytest.mark.parametrize("name", statements())
def test_a_statement_walks_through_no_big_table(name: str, db: sqlite3.Connection) -> None:
    found = faults(db, statements()[name])
    assert bool(found) == (name in ALLOWED), f"{name}: {found}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM updates WHERE detail = :x",
        "SELECT count(*) FROM events",
        "SELECT u.device FROM devices d JOIN updates u ON u.detail = d.device",
        "SELECT * FROM journal AS j WHERE text = :text ORDER BY id DESC LIMIT 5",
        "SELECT * FROM vitals WHERE member = :member ORDER BY cpu_percent LIMIT 5",
        "SELECT device FROM devices WHERE EXISTS (SELECT 1 FROM updates WHERE samples = 1)",
    ],
)
def test_the_rule_refuses_what_walks_or_sorts(sql: str, db: sqlite3.Connection) -> None:
    assert faults(db, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM events ORDER BY id DESC LIMIT :n",
        "SELECT * FROM updates WHERE device = :device ORDER BY id DESC LIMIT 5",
        "SELECT state, count(*) FROM devices GROUP BY state",
        "SELECT d.device, v.time FROM devices d JOIN vitals v ON v.id = d.vitals",
    ],
)
def test_the_rule_lets_pass_what_searches(sql: str, db: sqlite3.Connection) -> None:
    assert faults(db, sql) == []


def test_what_devices_have_spent_is_found_without_walking_through_rounds(db: sqlite3.Connection) -> None:
    """A round's list of expected devices is long, and stands before what is asked for."""
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {ui.queries.standing.OF_DEVICES}", _Anything())]
    assert len(plan) == 1
    assert "USING INDEX rounds_spent" in plan[0]


def test_what_is_allowed_is_there_and_says_why() -> None:
    assert set(ALLOWED) <= set(statements())
    assert all(len(why) > 20 for why in ALLOWED.values())


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_a_module_of_queries_has_its_sql_in_constants(module: ModuleType) -> None:
    source = inspect.getsource(module)
    assert not re.findall(r'execute\(\s*(?:f?["\']|f"""|""")', source), "SQL inside a call: give it a name in capitals"
    assert not re.findall(r'f("""|")\s*(SELECT|WITH)\b', source), "SQL put together from values: bind parameters"
    assert "streamlit" not in source
    assert "pandas" not in source
