"""What is remembered of operators' commands, and what makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.wire import ANN, EVE

from aggregator.log import Log
from aggregator.phases import Policy
from aggregator.states import State, Steered
from aggregator.steering import Control, Steering
from floe.errors import Refused
from floe.identity import Identity
from floe.messages import Command, Phase
from floe.plan import Plan
from floe.settings import Rounds

POLICY = Policy(Rounds(count=10), Plan())
OPEN = State(Phase("main", 1, 4, "train"), stage="open", last=10)
FINISHED = State(Phase("main", 1, 10, "evaluate"), stage="finished", last=10)


def command(action: Any, seq: int = 1, *, rounds: int = 0, who: Identity = ANN, to: str = "main") -> Command:
    return Command(
        federation="floe", sender=who.name, key=who.key, proof="", seq=seq, to=to, action=action, rounds=rounds
    )


@pytest.fixture
def steering(tmp_path: Path) -> Steering:
    (tmp_path / "operators.pub").write_text(f"# who may\n{ANN.name} {ANN.key}  # since spring\n\nbroken\n")
    return Steering(Log(tmp_path).db, "main", tmp_path / "operators.pub")


@pytest.mark.parametrize(
    ("state", "action", "rounds", "event", "remembered"),
    [
        (OPEN, "pause", 0, Steered("pause", 10), Control("paused")),
        (OPEN, "stop", 0, Steered("stop", 10), Control("stopped")),
        (OPEN, "start", 2, Steered("start", 5), Control("", 5, 3, 10)),
        (OPEN, "start", 0, None, Control()),
        (OPEN, "resume", 0, None, Control()),
        (OPEN, "status", 0, None, Control()),
        (FINISHED, "start", 0, Steered("start", 20), Control("", 20, 10, 10)),
        (FINISHED, "start", 3, Steered("start", 13), Control("", 13, 10, 10)),
    ],
)
def test_a_command_is_remembered_before_it_is_followed(
    steering: Steering, state: State, action: str, rounds: int, event: Steered | None, remembered: Control
) -> None:
    assert steering.handle(command(action, rounds=rounds), state, POLICY)[0] == event
    assert steering.control() == remembered


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (command("stop", who=EVE), "unknown-key"),
        (command("stop", to="other"), "not-for-us"),
        (command("stop", 0), "malformed"),
    ],
)
def test_a_command_of_another_or_an_older_one_is_refused(steering: Steering, asked: Command, reason: str) -> None:
    steering.handle(command("status", 1), OPEN, POLICY)
    with pytest.raises(Refused) as refused:
        steering.handle(asked, OPEN, POLICY)
    assert refused.value.reason == reason
    assert steering.control() == Control()


def test_the_same_command_again_is_answered_and_not_followed(steering: Steering) -> None:
    assert steering.handle(command("pause", 7), OPEN, POLICY)[0] is not None
    event, words = steering.handle(command("pause", 7), OPEN, POLICY)
    assert event is None
    assert words.startswith("done before")


@pytest.mark.parametrize(
    ("state", "action"), [(FINISHED, "pause"), (FINISHED, "stop"), (State(OPEN.phase, held="stopped"), "resume")]
)
def test_what_makes_no_sense_is_refused_and_leaves_no_trace(steering: Steering, state: State, action: str) -> None:
    with pytest.raises(Refused):
        steering.handle(command(action, 5), state, POLICY)
    event, _ = steering.handle(command("pause", 5), OPEN, POLICY)
    assert event is not None, "a refused command has used up its sequence number"


@pytest.mark.parametrize(
    ("control", "count", "last"),
    [
        (Control(), 10, 10),
        (Control("paused"), 12, 12),
        (Control("", 5, 3, 10), 10, 5),
        (Control("", 15, 10, 10), 10, 15),
        (Control("", 15, 10, 10), 30, 30),
    ],
)
def test_the_last_round_is_the_operators_until_the_configuration_changes(
    control: Control, count: int, last: int
) -> None:
    assert control.last_round(Rounds(count=count)) == last
