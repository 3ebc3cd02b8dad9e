"""SIGKILL at the steps by which an optimizer's memory is kept: models and memories are those of an undisturbed run.

Table: see test_kill_steps.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.federation import Federation, Sections
from helpers.kills import Make, aggregator_at, kill_everywhere, table, unknown
from helpers.plain import SECTIONS

ROUNDS = 20  # more than the kills need
PLAN: Sections = {
    **SECTIONS,
    "rounds": {"count": ROUNDS, "devices": 2, "quorum": 2, "grace_s": 3600.0, "deadline_s": 3600.0},
    "plan": {**SECTIONS["plan"], "rule": "fedadam", "server_learning_rate": 0.01},
    "device": {"telemetry_s": 0.0},
}


def begin(federation: Federation) -> None:
    federation.configure(PLAN)
    for device in "ab":
        federation.client(device)


def memories(federation: Federation) -> set[str]:
    return {path.name for path in (federation.folder / "state" / "aggregator-main" / "optimizer").glob("*")}


@pytest.fixture(scope="module")
def undisturbed(new_federation: Make) -> dict[int, str]:
    with new_federation("undisturbed-optimizer") as federation:
        begin(federation)
        notes = federation.folder / "notes.txt"
        federation.aggregator(by=("helpers.killer", "note", str(notes), "--"))
        federation.finish(timeout_s=200)
        new = unknown(notes.read_text().splitlines(), "aggregator", "optimizer")
        assert new == [], "steps that nothing kills at yet: add them to kill_steps/optimizer.txt"
        return federation.models()


def test_an_aggregator_killed_while_it_keeps_the_memory_makes_the_same_models(
    new_federation: Make, undisturbed: dict[int, str]
) -> None:
    def end(federation: Federation) -> None:
        rounds = max(federation.models(), default=0) + 1
        federation.configure({**PLAN, "rounds": {**PLAN["rounds"], "count": rounds}})
        federation.aggregator()
        federation.finish()
        models = federation.models()
        assert models == {number: undisturbed[number] for number in range(rounds + 1)}
        kept = {Path(name).stem.split("-")[0] for name in memories(federation)}
        assert kept == {str(rounds - 1), str(rounds)}
        begins = federation.query("SELECT * FROM events WHERE kind = 'optimizer' AND text NOT LIKE '%: model 0 %'")
        assert begins == []

    kill_everywhere(table("optimizer"), new_federation, begin, aggregator_at, end)
