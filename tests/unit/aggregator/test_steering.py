"""What is remembered of operators' commands, and what makes no sense."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.wire import ANN, EVE

from aggregator.control import Control
from aggregator.log import Log
from aggregator.phases import Policy
from aggregator.states import State, Steered
from aggregator.steering import Steering
from floe.identity import Identity
from floe.messages import Command, Phase
from floe.operators import read_operators
from floe.plan import Plan
from floe.settings import Rounds

POLICY = Policy(Rounds(count=10), Plan())
OPEN = State(Phase("main", 1, 4, "train"), stage="open", last=10)
WAITING = State(OPEN.phase, last=10)
EVALUATED = State(Phase("main", 1, 10, "evaluate"), stage="open", last=10)
FINISHED = State(Phase("main", 1, 10, "evaluate"), stage="finished", last=10)


def command(action: Any, seq: int = 1, *, rounds: int = 0, who: Identity = ANN, to: str = "main") -> Command:
    return Command(
        federation="floe", sender=who.name, key=who.key, proof="", seq=seq, to=to, action=action, rounds=rounds
    )


@pytest.fixture
def told() -> list[str]:
    return []


@contextmanager
def opened(folder: Path, told: list[str]) -> Iterator[Steering]:
    """The steering as an aggregator has it after a start."""
    with closing(Log(folder)) as log:
        yield Steering(
            log.db,
            "main",
            partial(read_operators, folder / "operators.pub"),
            told.append,
            lambda row: None,
            lambda plan: "",
        )


@pytest.fixture
def steering(tmp_path: Path, told: list[str]) -> Iterator[Steering]:
    (tmp_path / "operators.pub").write_text(f"# who may\n{ANN.name} {ANN.key}  # since spring\n\n")
    with opened(tmp_path, told) as steering:
        yield steering


@pytest.mark.parametrize(
    ("state", "action", "rounds", "event", "remembered"),
    [
        (OPEN, "pause", 0, Steered("pause", 10), Control("paused")),
        (OPEN, "stop", 0, Steered("stop", 10), Control("stopped")),
        (OPEN, "start", 2, Steered("start", 5), Control("", 5, 3, 10)),
        (WAITING, "start", 0, Steered("start", 10), Control("", 10, 3, 10, "1-4-train")),
        (EVALUATED, "start", 2, Steered("start", 12), Control("", 12, 10, 10)),
        (EVALUATED, "start", 0, None, Control()),
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
    assert steering.handle(command(action, rounds=rounds), state, POLICY).steered == event
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
    verdict = steering.handle(asked, OPEN, POLICY)
    assert (verdict.done, verdict.reason, verdict.steered) == (False, reason, None)
    assert steering.control() == Control()
    assert steering.handle(command("pause", 2), OPEN, POLICY).steered, "what was refused so counts for nothing"


def test_the_same_command_again_is_answered_and_not_followed(steering: Steering) -> None:
    first = steering.handle(command("pause", 7), OPEN, POLICY)
    again = steering.handle(command("pause", 7), FINISHED, POLICY)
    assert first.steered is not None
    assert again == replace(first, steered=None)


@pytest.mark.parametrize(
    ("state", "action"), [(FINISHED, "pause"), (FINISHED, "stop"), (State(OPEN.phase, held="stopped"), "resume")]
)
def test_what_made_no_sense_is_refused_also_later_and_after_a_restart(
    steering: Steering, state: State, action: str, tmp_path: Path, told: list[str]
) -> None:
    refused = steering.handle(command(action, 5), state, POLICY)
    assert (refused.done, refused.reason, refused.steered) == (False, "round", None)
    held = State(OPEN.phase, stage="open", last=10, held="paused")
    assert steering.handle(command(action, 5), held, POLICY) == refused
    with opened(tmp_path, told) as restarted:
        assert restarted.handle(command(action, 5), held, POLICY) == refused
        assert restarted.control() == Control()


def test_what_was_promised_is_on_disk_before_the_answer(steering: Steering) -> None:
    seen: list[str] = []
    steering._db.conn.set_trace_callback(seen.append)
    steering.handle(command("pause"), OPEN, POLICY)
    words = [statement.split()[0] for statement in seen if statement.startswith(("BEGIN", "INSERT", "COMMIT"))]
    assert words == ["BEGIN", "INSERT", "INSERT", "COMMIT"], "the wish and its number"
    assert (seen[0], seen[-1]) == ("PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL")


def test_the_reply_names_the_highest_number_of_the_key(steering: Steering) -> None:
    def newest(asked: Command) -> Any:
        verdict = steering.handle(asked, OPEN, POLICY)
        return steering.reply_to(asked, verdict, OPEN, POLICY, 0.0)["newest"]

    assert newest(command("status", 9, who=EVE)) == 0
    assert [newest(command("status", seq)) for seq in (7, 3, 8)] == [7, 7, 8]


def test_a_list_that_does_not_read_is_told_once_and_obeyed_where_it_does(
    steering: Steering, tmp_path: Path, told: list[str]
) -> None:
    path = tmp_path / "operators.pub"
    good = path.read_text()
    path.write_text(f"{good}eve {EVE.key} now\n")
    assert steering.handle(command("status", 1), OPEN, POLICY).done
    verdicts = [steering.handle(command("status", seq, who=EVE), OPEN, POLICY) for seq in (1, 2)]
    assert "is no operator here, and who is cannot be told as it should" in verdicts[0].detail
    assert [text.partition("; ")[0] for text in told] == [f"{path}, line 4: not `name key`, but 'eve {EVE.key} now'"]
    path.write_bytes(b"\xff")
    assert steering.handle(command("status", 2), OPEN, POLICY).reason == "unknown-key"
    assert told[1:] == [f"{path}: cannot be read (not UTF-8), so no operator is obeyed; mend it"]
    path.write_text(good)
    assert steering.handle(command("status", 2), OPEN, POLICY).done
    assert len(told) == 2


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
