"""SIGKILL at the steps of the other policies, on real processes: each accepted update is in exactly one model.

Late updates that are merged, void rounds whose updates the next one uses, asynchronous operation, an operator's
commands. Every model is made again from the record (`helpers.recount`). Tables: see test_kill_steps.py.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers.federation import Federation, Sections
from helpers.journaling import JOURNAL, TRAINERS
from helpers.kills import Make, aggregator_at, device_at, kill_everywhere, table, unknown
from helpers.plain import SECTIONS
from helpers.recount import Count, recount

MANY = 100_001
MORE = 4  # rounds after the last kill
PART = 3  # steps of one command in one test
LATE: Sections = {
    "rounds": {
        "count": MANY, "devices": 3, "quorum": 2, "grace_s": 0.0, "deadline_s": 3600.0, "below_quorum": "void",
        "late": "merge",
    },
    "plan": {"model": "late", "scaling": "none"},
    "trainers": TRAINERS,
    "device": {"telemetry_s": 0.0},
}  # fmt: skip
ASYNCHRONOUS: Sections = {
    "rounds": {"count": MANY, "devices": 2, "mode": "asynchronous", "deadline_s": 3600.0, "mixing": 0.6},
    "plan": {"model": "journaling", "scaling": "none"},
    "trainers": TRAINERS,
    "device": {"telemetry_s": 0.0},
}


def begin(federation: Federation, sections: Sections, devices: str) -> None:
    """Devices of unequal numbers of rows."""
    federation.configure(sections)
    (federation.folder / JOURNAL).mkdir()
    for place, device in enumerate(devices):
        federation.features(device, rows=40 + 10 * place)
        federation.client(device)


def come_to_an_end(federation: Federation, sections: Sections, name: str, *, mixing: float = 0.0) -> Count:
    """A few more rounds, without a kill; the steps that the aggregator takes are in the tables."""
    notes = federation.folder / "notes.txt"
    last = federation.query("SELECT max(round) AS last FROM rounds")[0]["last"] + MORE
    rounds = {**sections["rounds"], "count": last + 1 - last % 2}
    federation.configure({**sections, "rounds": rounds})
    federation.aggregator(by=("helpers.killer", "note", str(notes), "--"))
    federation.finish()
    new = unknown(notes.read_text().splitlines(), "aggregator", name)
    assert new == [], f"steps that nothing kills at yet: add them to kill_steps/{name}.txt"
    count = recount(federation.folder, mixing=mixing)
    assert count.wrong == []
    return count


def test_an_aggregator_killed_at_every_step_with_late_updates_and_void_rounds(new_federation: Make) -> None:
    def end(federation: Federation) -> None:
        count = come_to_an_end(federation, LATE, "late")
        last = count.models[-1]
        assert count.models == list(range(1, last + 1, 2))
        assert count.void == list(range(2, last + 1, 2))
        assert count.merging == count.models[1:]
        assert [(one.device, one.round) for one in count.missing] in ([], [("c", last)])

    def others(federation: Federation) -> None:
        begin(federation, LATE, "abc")

    kill_everywhere(table("late"), new_federation, others, aggregator_at, end, phases=10)


def test_a_device_killed_at_every_step_of_a_late_phase(new_federation: Make) -> None:
    promised: set[str] = set()

    def died(federation: Federation) -> None:
        promised.update(path.stem for path in outbox(federation, "c"))

    def others(federation: Federation) -> None:
        begin(federation, LATE, "ab")
        federation.aggregator()

    def end(federation: Federation) -> None:
        federation.processes[2].interrupt()
        federation.client("c")
        count = come_to_an_end(federation, LATE, "late")
        assert {one.device for one in count.missing} <= {"c"}
        accepted = federation.query("SELECT transfer FROM updates WHERE outcome = 'accepted'")
        failed = federation.query("SELECT transfer FROM updates WHERE device = 'c' AND round % 2 = 0")
        assert promised <= {row["transfer"] for row in (*accepted, *failed)}

    kill_everywhere(table("late_device"), new_federation, others, device_at("c"), end, phases=10, died=died)


def outbox(federation: Federation, device: str) -> list[Path]:
    return list((federation.folder / "state" / f"device-{device}" / "outbox").glob("[!.]*.json"))


def test_an_aggregator_killed_at_every_step_makes_one_model_of_each_update_asynchronously(
    new_federation: Make,
) -> None:
    def others(federation: Federation) -> None:
        begin(federation, ASYNCHRONOUS, "ab")

    def end(federation: Federation) -> None:
        count = come_to_an_end(federation, ASYNCHRONOUS, "asynchronous", mixing=0.6)
        assert count.models == list(range(1, count.models[-1] + 1))
        ends = federation.query("SELECT outcome FROM updates WHERE task = 'train' ORDER BY id")
        after = [row["outcome"] for row in ends[len(count.models) :]]
        assert set(after) <= {"late"}, "all but those that came when all was done were to be accepted"
        assert len(count.missing) >= len(after)

    kill_everywhere(table("asynchronous"), new_federation, others, aggregator_at, end, phases=30)


class Operator:
    """Gives commands to an aggregator that dies while it handles one, and is then started again.

    `steps`: for what is asked for, the steps to die at, one each time.
    """

    def __init__(self, federation: Federation, steps: dict[str, list[str]]) -> None:
        self._federation = federation
        self.steps = steps

    def asks(self, action: str, *more: str, name: str = "", group: str = "round") -> dict[str, Any]:
        """The reply to a command; `name` is that in `steps`, if it is not the action."""
        federation, steps = self._federation, self.steps[name or action]
        (federation.folder / "logs" / "reply.log").unlink(missing_ok=True)
        if steps:
            federation.processes[-1].kill()
            aggregator = aggregator_at(federation, steps[0])
        flags = ("--json", "--wait", "60")
        command = federation.start("reply", group, action, *more, *flags, by=("helpers.hasty",))
        if steps:
            assert aggregator.wait() == -signal.SIGKILL
            print(f"killed at {name or action}: {steps.pop(0)}")
            federation.aggregator()
        assert command.wait() == 0, command.said()
        federation.processes.remove(command)
        found = json.loads(command.said().splitlines()[-1])
        assert isinstance(found, dict)
        return found


def parts() -> list[dict[str, list[str]]]:
    """The steps of commands, by what is asked for, in parts: at each time that it is asked for, one is taken."""
    steps: dict[str, list[str]] = {}
    for line in table("control"):
        name, step = line.split(": ")
        steps.setdefault(name, []).append(step)
    cut = range(0, max(map(len, steps.values())), PART)
    return [{name: some[at : at + PART] for name, some in steps.items()} for at in cut]


@pytest.mark.parametrize("steps", parts(), ids=lambda steps: steps["start"][0])
def test_an_aggregator_killed_at_every_step_of_a_command_follows_it_once(
    new_federation: Make, steps: dict[str, list[str]]
) -> None:
    rounds = {"count": 1, "devices": 3, "grace_s": 600.0, "deadline_s": 3600.0}  # only an operator starts them
    with new_federation("steered") as federation:
        federation.configure({**SECTIONS, "plan": {**SECTIONS["plan"], "model": "held"}, "rounds": rounds})
        assert federation.start("key", "key", "operator", "opa").wait() == 0
        for device in "ab":
            federation.client(device)
        federation.aggregator()
        federation.until("SELECT * FROM (SELECT count(*) AS n FROM devices) WHERE n = 2")
        operator, done = Operator(federation, {name: list(some) for name, some in steps.items()}), 0
        while any(operator.steps.values()):
            done = steer(federation, operator, done)


def steer(federation: Federation, operator: Operator, done: int) -> int:
    """All commands, from an end of the rounds to the next, whose number is returned: each was followed once."""
    gates = [federation.folder / f"hold-{device}-{done + 2}" for device in "ab"]
    for gate in gates:
        gate.touch()
    promoted = federation.models().get(done)
    if promoted:
        assert operator.asks("promote", str(done - 1), group="models")["stage"] == "finished"
        promoted = federation.models()[done - 1]
    assert operator.asks("start", "--rounds", "3")["last"] == done + 3
    federation.until("SELECT * FROM rounds WHERE round = ? AND state = 'open'", done + 2)
    epochs = done + 2
    assert operator.asks("set", f"epochs={epochs}", name="plan", group="plan")["plan"]["epochs"] == epochs
    paused = operator.asks("pause")
    assert (paused["held"], paused["last"]) == ("paused", done + 3)
    resumed = operator.asks("resume")
    assert (resumed["held"], resumed["last"]) == ("", done + 3)
    stopped = operator.asks("stop")
    assert (stopped["held"], stopped["last"]) == ("stopped", done + 3)
    federation.until("SELECT * FROM rounds WHERE round = ? AND state = 'void'", done + 2)
    for gate in gates:
        gate.unlink()
    last = done + 4
    assert operator.asks("start", "--rounds", "2", name="again")["last"] == last
    federation.until("SELECT * FROM rounds WHERE round = ? AND task = 'evaluate' AND state = 'closed'", last)
    assert sorted(federation.models())[-3:] == [done + 1, done + 3, last]
    rounds = {row["round"]: row for row in federation.query("SELECT * FROM rounds WHERE task = 'train'")}
    if promoted:
        assert rounds[done + 1]["base_sha256"] == promoted
    told = [json.loads(rounds[round_]["plan"])["epochs"] for round_ in range(done + 1, last + 1)]
    assert told[1] != epochs, "it was open already"
    assert told[2:] == [epochs, epochs]
    return last
