"""A process of a federation, killed at one step after the other (`helpers.killer` says what a step is)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from helpers.federation import Federation
from helpers.process import Process

Make = Callable[[str], AbstractContextManager[Federation]]
Start = Callable[[Federation, str], Process]
Do = Callable[[Federation], None]

FOLDER = Path(__file__).resolve().parents[1] / "integration" / "kill_steps"
PHASES = 4  # a process that has come through so many phases has passed its step by


def table(name: str) -> list[str]:
    """The steps of kill_steps/<name>.txt, in order."""
    return (FOLDER / f"{name}.txt").read_text().splitlines()


def unknown(taken: list[str], *names: str) -> list[str]:
    """The steps that are in none of these tables."""
    known = {step.removeprefix("? ").partition(" #")[0] for name in names for step in table(name)}
    return [step for step in taken if step not in known]


def closed(federation: Federation) -> int:
    return len(federation.query("SELECT round FROM rounds WHERE state != 'open'"))


def aggregator_at(federation: Federation, step: str) -> Process:
    return federation.aggregator(by=("helpers.killer", "kill", step, "--"))


def device_at(device: str) -> Start:
    return lambda federation, step: federation.client(device, by=("helpers.killer", "kill", step, "--"))


def kill_at(federation: Federation, start: Start, step: str, phases: int = PHASES) -> bool:
    """Start a process that dies at a step; whether it came there within a few phases."""
    before, process = closed(federation), start(federation, step.removeprefix("? "))
    federation.wait(lambda: not process.running or closed(federation) >= before + phases, f"death {step}")
    if process.running:
        process.kill()
        return False
    assert process.wait() == -signal.SIGKILL, f"{step}: ended otherwise\n{process.said()}"
    return True


def kill_everywhere(
    steps: list[str], new: Make, others: Do, start: Start, end: Do, *, phases: int = PHASES, died: Do = lambda _: None
) -> None:
    """Kill at one step after the other in one federation; in a new one from where a step does not come again.

    `others` configures it and starts who is not killed; `died` looks at what each death leaves.
    """
    left, federations = steps, 0
    while left:
        with new("killed") as federation:
            others(federation)
            done = 0
            while done < len(left) and (kill_at(federation, start, left[done], phases) or left[done].startswith("? ")):
                print(f"done: {left[done]}")
                died(federation)
                done += 1
            assert done, f"{left[0]}: nothing died there"
            end(federation)
        left, federations = left[done:], federations + 1
    print(f"killed at all of {len(steps)} steps, in {federations} federations")
