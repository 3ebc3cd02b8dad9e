"""What operators ask for, signed: who may ask, what is remembered of it, how the rounds answer.

The wish is on disk before it is followed, so that a paused federation stays paused over a restart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aggregator.phases import Policy
from aggregator.rounds import missing
from aggregator.states import Held, State, Steered
from floe.errors import Refused
from floe.messages import Command
from floe.operators import known_operators
from floe.settings import Rounds
from floe.sqlite import Database
from floe.store import now

HELD: dict[str, Held] = {"start": "", "resume": "", "pause": "paused", "stop": "stopped"}


@dataclass(frozen=True)
class Control:
    """The operator's wish as it is remembered: what is held, the last round, the round of the last start.

    `last` was chosen while `rounds.count` was `count`: when that is changed afterwards, it counts again.
    """

    held: Held = ""
    last: int = 0
    since: int = 0
    count: int = 0

    def last_round(self, rounds: Rounds) -> int:
        """The last round to train."""
        return self.last if self.last and self.count == rounds.count else rounds.count


class Steering:
    """The commands of operators for one lineage. Raises `sqlite3.Error` when the disk refuses."""

    def __init__(self, db: Database, lineage: str, operators: Path) -> None:
        self._db = db
        self._lineage = lineage
        self._operators = operators

    def control(self) -> Control:
        row = self._db.execute(
            "SELECT held, last, since, count FROM control WHERE lineage = ?", [self._lineage]
        ).fetchone()
        return Control(*row) if row else Control()

    def handle(self, command: Command, state: State, policy: Policy) -> tuple[Steered | None, str]:
        """Check a command and record what it asks for, both or neither.

        The event for the rounds, None if nothing changes, and what became of it in words. The same command again is
        answered again. Raises `Refused`: `not-for-us`, `unknown-key`, `malformed`, and `round` for what makes no sense
        now.
        """
        if command.to != self._lineage:
            raise Refused("not-for-us", f"a command for {command.to!r}")
        if (command.sender, command.key) not in known_operators(self._operators):
            raise Refused("unknown-key", f"operator {command.sender!r} with this key is not in {self._operators.name}")
        with self._db.atomic():
            newest = self._newest(command)
            if command.seq < newest:
                raise Refused("malformed", "older than a command that was given before")
            if command.seq == newest:
                return None, f"done before: {describe(state, policy)}"
            row = {"operator": command.sender, "key": command.key, "seq": command.seq, "last_seen": now()}
            self._db.table("operators").upsert(row, pk=("operator", "key"))
            return self._follow(command, state, policy)

    def _newest(self, command: Command) -> int:
        sql = "SELECT seq FROM operators WHERE operator = ? AND key = ?"
        row = self._db.execute(sql, [command.sender, command.key]).fetchone()
        return row[0] if row else -1

    def _follow(self, command: Command, state: State, policy: Policy) -> tuple[Steered | None, str]:
        match command.action:
            case "status":
                return None, describe(state, policy)
            case "start":
                return self._start(command, state, policy)
            case "resume" if state.held == "stopped":
                raise Refused("round", "the rounds are stopped, not paused: start them")
            case "pause" if state.held == "stopped" or state.stage == "finished":
                raise Refused("round", f"there is nothing to pause: {describe(state, policy)}")
            case "stop" if state.stage == "finished":
                raise Refused("round", f"there is nothing to stop: {describe(state, policy)}")
        held = HELD[command.action]
        if held == state.held:
            return None, f"nothing changes: {describe(state, policy)}"
        self._remember(replace(self.control(), held=held))
        words = {"pause": "the open round goes on, no other opens", "stop": "stopped", "resume": "the rounds go on"}
        return Steered(command.action, state.last), words[command.action]

    def _start(self, command: Command, state: State, policy: Policy) -> tuple[Steered | None, str]:
        done = state.phase.round if state.stage == "finished" else max(state.phase.round - 1, 0)
        more = command.rounds or (policy.rounds.count if state.stage == "finished" else 0)
        last = done + more if more else max(state.last, done + 1)
        if last == state.last and not state.held and state.stage != "waiting":
            return None, f"nothing changes: {describe(state, policy)}"
        self._remember(Control("", last, done, policy.rounds.count))
        return Steered("start", last), f"started, to round {last}"

    def _remember(self, control: Control) -> None:
        self._db.table("control").upsert({"lineage": self._lineage, **asdict(control)}, pk="lineage")


def describe(state: State, policy: Policy) -> str:
    """Where the rounds stand, in words."""
    phase = f"{state.phase.task} {state.phase.round} of {state.last}"
    if state.stage == "finished":
        return f"all is done, {state.phase.round} rounds"
    if state.held:
        return f"{state.held} before {phase}" if state.stage == "waiting" else f"{phase} is open, then {state.held}"
    if state.stage == "waiting":
        return f"waiting with {phase} for {state.needed} device(s), {len(state.online)} online"
    return f"{phase} is open: {len(state.accepted)} accepted, {missing(state, policy)} more needed"
