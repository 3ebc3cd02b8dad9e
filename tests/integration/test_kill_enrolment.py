"""SIGKILL at every step of enrolment, on real processes: what was ordered is done in the end, once, and rounds go on.

`kill_steps/enrolment.txt` has the aggregator's steps by the command during which they come, `enrolment_device.txt` the
device's by what happens to it; see test_kill_steps.py. The steps of rounds are killed there, not here.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from helpers import people
from helpers.federation import Federation
from helpers.kills import Make, aggregator_at, device_at, table, unknown
from helpers.process import Process

ENDLESS = {
    "rounds": {"count": 100_001, "devices": 1, "quorum": 1, "grace_s": 2.0, "deadline_s": 20.0, "pause_s": 0.5},
    "device": {"telemetry_s": 0.0},
}
pytestmark = pytest.mark.timeout(900)  # some dozens of processes in each
PART = 4  # lives in one test
MAYBE_S = 5.0
HASTY = ("helpers.hasty",)
Steps = dict[str, list[str]]


def steps_of(name: str) -> Steps:
    """The steps of a table, by what happens then."""
    found: Steps = {}
    for line in table(name):
        when, step = line.split(": ")
        found.setdefault(when, []).append(step)
    return found


def parts(name: str) -> list[Steps]:
    """The steps of a table in parts: in each life of a device one of each list is taken."""
    steps = steps_of(name)
    start = steps.pop("start", [])
    cut = range(0, max(map(len, steps.values())), PART)
    found = [{when: some[at : at + PART] for when, some in steps.items() if some[at:]} for at in cut]
    return [{"start": start, **found[0]}, *found[1:]]


def comes(process: Process) -> bool:
    """Whether a process dies at a step that may not come, because that depends on who is faster."""
    end = time.monotonic() + MAYBE_S
    while process.running and time.monotonic() < end:
        time.sleep(0.05)
    return not process.running


class Life:
    """A device from its invitation to its revocation; the aggregator or it dies at the steps that are left for that."""

    def __init__(self, federation: Federation, device: str, *, office: Steps, own: Steps, notes: Path | None = None):
        self.federation, self.device = federation, device
        self.office, self.own = office, own
        self.by = ("helpers.killer", "note", str(notes), "--") if notes else HASTY
        self.running: Process | None = None

    def live(self) -> None:
        federation, device, reply = self.federation, self.device, ("--reply", "60")
        code = people.code_in(self.asks("invite", "invite", "--device", device, *reply))
        self.asks("join", "join", code, "--id", device, "--no-wait")
        if self.dies("wait"):
            self.revives("wait")
        self.runs()
        self.asks("approve", "devices", "approve", device, "--yes", *reply)
        people.trains(federation, device)
        self.asks("rotate", "devices", "rotate", device, *reply)
        self.asks("renew", "devices", "approve", device, "--yes", *reply, "--wait", "60")
        people.trains(federation, device)
        assert "approved with its new keys" in federation.said()
        self.asks("revoke", "devices", "revoke", device, *reply)
        process = self.runs()
        assert process.wait() == 5, "the device is told that it was revoked"
        federation.processes.remove(process)
        people.trains(federation, "a")
        assert people.states(federation)[device] == "revoked"

    def asks(self, name: str, *arguments: str) -> str:
        """What a command said, during which the aggregator may have died and come again; then the device may."""
        dies = self.dies(name)
        said = self.ordered(name, *arguments)
        if dies:
            self.revives(name)
        return said

    def ordered(self, name: str, *arguments: str) -> str:
        federation, steps = self.federation, self.office.get(name)
        if not steps:
            return people.order(federation, *arguments, by=HASTY)
        step = steps.pop(0)
        federation.processes[0].kill()
        self.aggregator(aggregator_at(federation, step.removeprefix("? ")))
        command = people.ordered(federation, *arguments, by=HASTY)
        if step.startswith("? ") and not comes(federation.processes[0]):
            federation.processes[0].kill()
        assert federation.processes[0].wait() == -signal.SIGKILL, f"{name}: {step}\n{federation.said()}"
        print(f"killed the aggregator at {name}: {step}")
        self.aggregator(federation.aggregator())
        assert command.wait() == 0, command.said()
        federation.processes.remove(command)
        return command.said()

    def aggregator(self, process: Process) -> None:
        self.federation.processes.remove(process)
        self.federation.processes[0] = process

    def dies(self, name: str) -> bool:
        """Have the device run so that it dies at the next step of this name, if there is one."""
        if not self.own.get(name):
            return False
        if self.running is not None:
            self.running.kill()
            self.federation.processes.remove(self.running)
        step = self.own[name][0].removeprefix("? ")
        step = re.sub(r"(?<=[-/.])b(?=[./ ])", "b*", step)  # its own name ends with a number
        self.running = device_at(self.device)(self.federation, step)
        return True

    def revives(self, name: str) -> None:
        assert self.running is not None
        step = self.own[name].pop(0)
        if step.startswith("? ") and not comes(self.running):
            self.running.kill()
        assert self.running.wait() == -signal.SIGKILL, f"{name}: {step}\n{self.federation.said()}"
        print(f"killed the device at {name}: {step}")
        self.federation.processes.remove(self.running)
        self.running = None
        self.runs()

    def runs(self) -> Process:
        if self.running is None:
            self.running = self.federation.client(self.device, by=self.by)
        return self.running


def begin(federation: Federation, start: list[str], notes: Path | None = None) -> None:
    """A federation with a member, whose aggregator has died at some steps of its first start."""
    people.found(federation, ENDLESS)
    federation.processes.clear()
    for step in start:
        assert aggregator_at(federation, step).wait() == -signal.SIGKILL, f"start: {step}"
        federation.processes.clear()
    federation.aggregator(by=("helpers.killer", "note", str(notes), "--") if notes else ("floe",))
    people.let_in(federation, "a")
    people.trains(federation, "a")


def test_the_tables_have_every_step_of_enrolment(new_federation: Make, tmp_path: Path) -> None:
    office, own = tmp_path / "office.txt", tmp_path / "own.txt"
    with new_federation("noted") as federation:
        begin(federation, [], office)
        Life(federation, "b", office={}, own={}, notes=own).live()
        for notes, name, rounds in ((office, "enrolment", "aggregator"), (own, "enrolment_device", "device")):
            known = {step.removeprefix("? ").partition(" #")[0] for some in steps_of(name).values() for step in some}
            new = [step for step in unknown(notes.read_text().splitlines(), rounds) if step not in known]
            assert new == [], f"steps that nothing kills at yet: add them to kill_steps/{name}.txt"


@pytest.mark.parametrize("steps", parts("enrolment"), ids=lambda steps: steps["renew"][0])
def test_an_aggregator_killed_at_every_step_of_enrolment_does_what_was_ordered(
    new_federation: Make, steps: Steps
) -> None:
    left = {name: list(some) for name, some in steps.items()}
    with new_federation("killed") as federation:
        begin(federation, left.pop("start", []))
        number = 0
        while any(left.values()):
            number += 1
            Life(federation, f"b{number}", office=left, own={}).live()


@pytest.mark.parametrize("steps", parts("enrolment_device"), ids=lambda steps: steps["rotate"][0])
def test_a_device_killed_at_every_step_of_enrolment_comes_through(new_federation: Make, steps: Steps) -> None:
    left = {name: list(some) for name, some in steps.items()}
    with new_federation("killed") as federation:
        begin(federation, left.pop("start", []))
        number = 0
        while any(left.values()):
            number += 1
            Life(federation, f"b{number}", office={}, own=left).live()
