"""SIGKILL at every step of the protocol, on real processes: the models are those of an undisturbed run, bit for bit.

`kill_steps/*.txt` has the steps (helpers/killer.py says what one is): one that the code has got since fails the first
test. Before a step that may not come, because it depends on who is faster, stands `? `.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.broker import broker_on, free
from helpers.federation import Federation
from helpers.kills import Make, aggregator_at, device_at, kill_everywhere, table, unknown
from helpers.plain import SECTIONS
from helpers.proxy import DROP, PASS, Message, Proxy, Verdict

from floe.topics import (
    ALL,
    CurrentRoster,
    DeviceJoin,
    DeviceTelemetry,
    EntryTo,
    JoinReplyTo,
    ModelManifest,
    OperatorCommand,
    OperatorRoster,
    ReplyTo,
    RosterReplyTo,
    parse,
)

ROUNDS = 60  # more than the kills need
PLAN = {
    "rounds": {"count": ROUNDS, "devices": 2, "quorum": 2, "grace_s": 3600.0, "deadline_s": 3600.0},
    "plan": {**SECTIONS["plan"], "scaling": "standard", "hidden": [80]},  # 5 chunks
    "trainers": SECTIONS["trainers"],
    "device": {"telemetry_s": 0.0},  # it comes by the clock, and is not repeated: no step of a round
}
# Not a person's, who sees whether it was answered, nor of enrolment, which does without rounds; nor telemetry.
LEFT_OUT = (
    *(OperatorCommand, ReplyTo, CurrentRoster, EntryTo, DeviceJoin, JoinReplyTo, OperatorRoster, RosterReplyTo),
    DeviceTelemetry,
)
KINDS = [kind for kind in ALL if kind not in LEFT_OUT]
PART = 18


@dataclass(frozen=True)
class Undisturbed:
    """The hash of every model, by round, and the steps of the processes on the way."""

    models: dict[int, str]
    steps: dict[str, list[str]]


@pytest.fixture(scope="module")
def plain_run(new_federation: Make, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    notes = tmp_path_factory.mktemp("notes")
    with new_federation("undisturbed-plain") as federation:
        federation.configure(PLAN)
        federation.aggregator(by=("helpers.killer", "note", str(notes / "aggregator.txt"), "--"))
        federation.client("a")
        federation.client("b", by=("helpers.killer", "note", str(notes / "device.txt"), "--"))
        federation.finish(timeout_s=200)
        steps = {path.stem: path.read_text().splitlines() for path in notes.glob("*.txt")}
        return Undisturbed(federation.models(), steps)


@pytest.mark.parametrize("name", ["aggregator", "device"])
def test_the_table_has_every_step_that_a_process_takes(plain_run: Undisturbed, name: str) -> None:
    new = unknown(plain_run.steps[name], name)
    assert new == [], f"steps that nothing kills at yet: add them to kill_steps/{name}.txt, where they come"


def come_to_an_end(federation: Federation, undisturbed: Undisturbed) -> None:
    """One more round without a kill; then look at everything."""
    rounds = max(federation.models(), default=0) + 1
    federation.configure({**PLAN, "rounds": {**PLAN["rounds"], "count": rounds}})
    federation.aggregator()
    federation.finish()
    models = federation.models()
    assert len(models) == rounds + 1
    assert models == {round_: undisturbed.models[round_] for round_ in models}
    accepted = federation.query("SELECT device, round, task FROM updates WHERE outcome = 'accepted' AND task = 'train'")
    assert len(accepted) == len({tuple(row.values()) for row in accepted}) == 2 * rounds
    assert federation.query("SELECT * FROM updates WHERE outcome != 'accepted' AND task = 'train'") == []


def parts(name: str) -> list[list[str]]:
    """The steps of a table, in order, in parts that one test gets through in a minute."""
    steps = table(name)
    return [steps[at : at + PART] for at in range(0, len(steps), PART)]


@pytest.mark.parametrize("steps", parts("aggregator"), ids=lambda steps: steps[0])
def test_an_aggregator_killed_at_every_step_makes_the_same_models(
    new_federation: Make, plain_run: Undisturbed, steps: list[str]
) -> None:
    def others(federation: Federation) -> None:
        federation.configure(PLAN)
        federation.client("a")
        federation.client("b")

    kill_everywhere(steps, new_federation, others, aggregator_at, lambda made: come_to_an_end(made, plain_run))


@pytest.mark.parametrize("steps", parts("device"), ids=lambda steps: steps[0])
def test_a_device_killed_at_every_step_makes_the_same_models(
    new_federation: Make, plain_run: Undisturbed, steps: list[str]
) -> None:
    def others(federation: Federation) -> None:
        federation.configure(PLAN)
        federation.client("a")
        federation.aggregator()

    def end(federation: Federation) -> None:
        federation.processes[1].interrupt()
        federation.client("b")
        come_to_an_end(federation, plain_run)

    kill_everywhere(steps, new_federation, others, device_at("b"), end)


class AtMessage:
    """A rule: kill -9 of the broker at the first message of a kind in one direction, which is not passed on upward.

    No manifest of a model goes down to everybody, so that devices ask for it.
    """

    def __init__(self, *, upward: bool) -> None:
        self.target: type | None = None
        self.pid = 0
        self._upward = upward

    def __call__(self, message: Message) -> Verdict:
        topic = parse(message.topic)
        if self.target is type(topic) and self._upward == message.upward:
            self.target = None
            os.kill(self.pid, signal.SIGKILL)
            return DROP if message.upward else PASS
        return DROP if isinstance(topic, ModelManifest) and not message.upward else PASS


@pytest.mark.parametrize("upward", [True, False], ids=["on its way in", "on its way out"])
def test_a_broker_killed_at_every_kind_of_message_with_its_state_lost(
    tmp_path: Path, plain_run: Undisturbed, *, upward: bool
) -> None:
    port, rule = free(), AtMessage(upward=upward)
    with Proxy(port, rule) as proxy:
        federation = Federation(tmp_path / "federation", proxy.port)
        federation.configure(PLAN)
        try:
            for kind in KINDS:
                with broker_on(tmp_path / "broker", port) as broker:
                    rule.pid, rule.target = broker.pid, kind
                    if not federation.processes:
                        aggregator = federation.aggregator()
                        federation.client("a")
                        federation.client("b")
                    gone = broker.exit_code
                    federation.wait(lambda gone=gone: gone() is not None, f"the broker's death at {kind}")  # type: ignore[misc]
                    assert broker.exit_code() == -signal.SIGKILL
                print(f"killed the broker at {kind.__name__}")
            with broker_on(tmp_path / "broker", port):
                aggregator.interrupt()
                come_to_an_end(federation, plain_run)
                federation.close()
        finally:
            federation.close()
