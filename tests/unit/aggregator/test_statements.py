"""What is done at every close costs as much as the round, not as the log: read from SQLite's plan."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from aggregator import statements
from floe.store import FILE, open_log


@pytest.mark.parametrize(
    ("name", "found_by"),
    [("ACCOUNT", "device=? AND lineage=?"), ("ACCOUNT_AFTER", "device=? AND lineage=? AND (epoch,round)>(?,?)")],
)
def test_the_account_before_or_after_an_update_is_one_step_into_an_index(
    name: str, found_by: str, tmp_path: Path
) -> None:
    sql = getattr(statements, name)
    with closing(open_log(tmp_path / FILE).conn) as db:
        given = dict.fromkeys(re.findall(r":(\w+)", sql), "x")
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", given)]
    assert plan == [f"SEARCH updates USING INDEX updates_spent ({found_by})"]  # and nothing is sorted


@pytest.mark.parametrize("name", ["CLOSE", "FIRST", "MEASURE", "PASS_ON"])
def test_a_statement_at_a_close_looks_at_the_updates_of_one_phase(name: str, tmp_path: Path) -> None:
    sql = getattr(statements, name)
    with closing(open_log(tmp_path / FILE).conn) as db:
        given = dict.fromkeys(re.findall(r":(\w+)", sql), 1)
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", given)]
    steps = [step for step in plan if re.match(r"(SEARCH|SCAN) (u|updates)\b", step)]
    assert steps
    for step in steps:
        assert re.search(r"(merged=\? AND task=\?|round=\? AND task=\?|rowid=\?)", step), step
