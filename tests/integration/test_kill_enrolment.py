"""SIGKILL at every step of enrolment, on real processes: what was ordered is done in the end, once, and rounds go on.

`kill_steps/enrolment.txt` has the aggregator's steps by the command during which they come, `enrolment_device.txt` the
device's by what it goes through; see test_kill_steps.py. The steps of rounds are killed there, not here.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import people
from helpers.federation import Federation
from helpers.kills import Make, aggregator_at, device_at, table, unknown
from helpers.process import Process

ENDLESS = {"rounds": {"count": 100_001, "devices": 1, "quorum": 1, "grace_s": 2.0, "deadline_s": 20.0, "pause_s": 0.5}}
AGGREGATOR = ("invite", "join", "approve", "rotate", "renew", "revoke")
DEVICE = ("wait", "approve", "rotate", "renew", "revoke")
PART = 6  # lives in one test
Steps = dict[str, list[str]]


def steps_of(name: str) -> Steps:
    """The steps of a table, by what happens then."""
    found: Steps = {}
    for line in table(name):
        when, step = line.split(": ")
        found.setdefault(when, []).append(step)
    return found


def lives(name: str) -> list[Steps]:
    """The steps of a table in parts; in each life of a device one of each list is taken."""
    steps = steps_of(name)
    longest = max(map(len, steps.values()))
    cut = range(0, longest, PART)
    return [{when: some[at : at + PART] for when, some in steps.items() if some[at:]} for at in cut]


class Life:
    """A device from its invitation to its end, while the aggregator or the device dies at one step after the other."""

    def __init__(self, federation: Federation, device: str, kill: Callable[[str], str]) -> None:
        self.federation, self.device = federation, device
        self.kill = kill
        self.running: Process | None = None

    def asks(self, name: str, *arguments: str) -> str:
        """What a command said, during which the aggregator may have died and come again."""
        federation, step = self.federation, self.kill(name)
        if step:
            federation.processes[0].kill()
            federation.processes[0] = aggregator_at(federation, step)
            federation.processes.pop()
        command = people.ordered(federation, *arguments)
        if step:
            assert federation.processes[0].wait() == -signal.SIGKILL, f"{name}: {step}\n{federation.said()}"
            print(f"killed at {name}: {step}")
            federation.processes[0] = federation.aggregator()
            federation.processes.pop()
        assert command.wait() == 0, command.said()
        federation.processes.remove(command)
        return command.said()

    def live(self) -> None:
        federation, device = self.federation, self.device
        code = people.code_in(self.asks("invite", "invite", "--device", device, "--reply", "60"))
        self.asks("join", "join", code, "--id", device, "--no-wait")
        self.run("wait", lambda process: "waiting until an operator lets" in process.said())
        self.run("approve")
        self.asks("approve", "devices", "approve", device, "--yes", "--reply", "60")
        people.trains(federation, device)
        self.run("rotate")
        self.asks("rotate", "devices", "rotate", device, "--reply", "60")
        self.run("renew")
        self.asks("renew", "devices", "approve", device, "--yes", "--reply", "60", "--wait", "60")
        people.trains(federation, device)
        self.asks("revoke", "devices", "revoke", device, "--reply", "60")
        process = self.running
        assert process is not None
        federation.wait(lambda: not process.running, "the revoked device ends")
        assert process.wait() == 5
        people.trains(federation, "a")
        assert people.states(federation)[device] == "revoked"

    def run(self, name: str, until: Callable[[Process], bool] = lambda _: True) -> None:
        """The device runs, if it does not; it may die at a step of what comes now."""
        if self.running is None:
            self.running = self.federation.client(self.device)
            self.federation.wait(lambda: until(self.running) if self.running else False, f"{name} {self.device}")


def begin(federation: Federation, notes: Path | None = None) -> None:
    people.found(federation, ENDLESS)
    federation.processes.clear()
    by = ("helpers.killer", "note", str(notes), "--") if notes else ("floe",)
    federation.aggregator(by=by)
    people.let_in(federation, "a")
    people.trains(federation, "a")


def test_the_table_has_every_step_that_the_aggregator_takes(new_federation: Make, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    with new_federation("noted") as federation:
        begin(federation, notes)
        Life(federation, "b", lambda name: "").live()
        taken = notes.read_text().splitlines()
    known = {step for some in steps_of("enrolment").values() for step in some}
    new = [step for step in unknown(taken, "aggregator", "late") if step not in known]
    assert new == [], "steps that nothing kills at yet: add them to kill_steps/enrolment.txt"


@pytest.mark.parametrize("steps", lives("enrolment"), ids=lambda steps: next(iter(steps.values()))[0])
def test_an_aggregator_killed_at_every_step_of_enrolment_ends_where_it_should(
    new_federation: Make, steps: Steps
) -> None:
    steps = {name: list(some) for name, some in steps.items()}
    with new_federation("killed") as federation:
        begin(federation)
        number = 0
        while any(steps.values()):
            number += 1
            Life(federation, f"b{number}", lambda name: steps[name].pop(0) if steps.get(name) else "").live()
