"""What operators ask for, signed: who may ask, what is remembered of it, how the rounds answer.

The wish is on disk before it is followed, so that a paused federation stays paused over a restart. A refusal is kept
too: whoever repeats the command later, when it would make sense, is refused as its operator was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from aggregator.phases import Policy
from aggregator.rounds import missing, quorum_of
from aggregator.states import Held, State, Steered
from floe.errors import Refused
from floe.messages import Command, Phase
from floe.operators import Operators
from floe.settings import Rounds
from floe.sqlite import Database
from floe.store import durably, now

HELD: dict[str, Held] = {"start": "", "resume": "", "pause": "paused", "stop": "stopped"}


@dataclass(frozen=True)
class Control:
    """The operator's wish as it is remembered: what is held, the last round, the round of the last start.

    `last` was chosen while `rounds.count` was `count`: when that is changed afterwards, it counts again. `opens` names
    the phase that was waiting at the last start: it opens with whichever devices are online.
    """

    held: Held = ""
    last: int = 0
    since: int = 0
    count: int = 0
    opens: str = ""

    def last_round(self, rounds: Rounds) -> int:
        """The last round to train."""
        return self.last if self.last and self.count == rounds.count else rounds.count

    def starts(self, phase: Phase) -> bool:
        """Whether a phase that has not opened yet was started by the operator."""
        return self.opens == _named(phase)


@dataclass(frozen=True)
class Verdict:
    """What became of a command: whether it was followed, in words, why not, and the event for the rounds."""

    done: bool
    detail: str
    reason: str = ""
    steered: Steered | None = None


class Steering:
    """The commands of operators for one lineage. Raises `sqlite3.Error` when the disk refuses."""

    def __init__(
        self, db: Database, lineage: str, operators: Callable[[], Operators], tell: Callable[[str], None]
    ) -> None:
        self._db = db
        self._lineage = lineage
        self._read = operators
        self._tell = tell
        self._fault = ""

    def control(self) -> Control:
        row = self._db.execute(
            "SELECT held, last, since, count, opens FROM control WHERE lineage = ?", [self._lineage]
        ).fetchone()
        return Control(*row) if row else Control()

    def knows(self, operator: str) -> bool:
        """Whether somebody of this name may give commands."""
        return any(name == operator for name, _ in self._operators().known)

    def handle(self, command: Command, state: State, policy: Policy) -> Verdict:
        """Check a command; record it and what it asks for, both or neither, also that it was refused.

        The same command again gets the same answer, and is not followed again. Nothing is recorded of a stranger's.
        """
        if command.to != self._lineage:
            return Verdict(False, f"a command for {command.to!r}", "not-for-us")
        operators = self._operators()
        if (command.sender, command.key) not in operators.known:
            stranger = f"{command.sender!r} with this key is no operator here"
            mend = ", and who is cannot be told as it should: see the aggregator's log" if operators.fault else ""
            return Verdict(False, stranger + mend, "unknown-key")
        with durably(self._db):
            row = self._db.execute(
                "SELECT seq, done, detail, reason FROM operators WHERE operator = ? AND key = ?",
                [command.sender, command.key],
            ).fetchone()
            if row and command.seq < row[0]:
                return Verdict(False, "older than a command that was given before", "malformed")
            if row and command.seq == row[0]:
                return Verdict(bool(row[1]), *row[2:])
            try:
                steered, detail = self._follow(command, state, policy)
                verdict = Verdict(True, detail, steered=steered)
            except Refused as refusal:
                verdict = Verdict(False, refusal.detail, refusal.reason)
            row = {
                "operator": command.sender, "key": command.key, "seq": command.seq, "done": verdict.done,
                "detail": verdict.detail, "reason": verdict.reason, "last_seen": now(),
            }  # fmt: skip
            self._db.table("operators").upsert(row, pk=("operator", "key"))
        return verdict

    def reply_to(
        self, command: Command, verdict: Verdict, state: State, policy: Policy, moment: float
    ) -> dict[str, Any]:
        """The fields of the `Reply`, with the rounds as they stand after the command."""
        sql = "SELECT max(seq) FROM operators WHERE operator = ? AND key = ?"
        (newest,) = self._db.execute(sql, [command.sender, command.key]).fetchone()
        return {
            "to": command.sender, "to_key": command.key, "command": command.seq, "newest": newest or 0,
            "done": verdict.done, "detail": verdict.detail[:500],
            "phase": state.phase, "stage": state.stage, "held": state.held, "last": state.last,
            "online": len(state.online), "expected": len(state.expected),
            "accepted": len(state.accepted), "refused": len(state.refused),
            "quorum": quorum_of(state, policy), "seconds_left": state.seconds_left(moment),
        }  # fmt: skip

    def _operators(self) -> Operators:
        """The list as it stands now; what is wrong with it is told once."""
        operators = self._read()
        if operators.fault != self._fault:
            self._fault = operators.fault
            if operators.fault:
                self._tell(operators.fault)
        return operators

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
        finished, round_ = state.stage == "finished", state.phase.round
        done = round_ if finished or state.phase.task == "evaluate" else max(round_ - 1, 0)
        more = command.rounds or (policy.rounds.count if finished else 0)
        last = done + more if more else max(state.last, round_, 1)
        if last == state.last and not state.held and state.stage != "waiting":
            return None, f"nothing changes: {describe(state, policy)}"
        opens = _named(state.phase) if state.stage == "waiting" else ""
        self._remember(Control("", last, done, policy.rounds.count, opens))
        return Steered("start", last), f"started, to round {last}"

    def _remember(self, control: Control) -> None:
        self._db.table("control").upsert({"lineage": self._lineage, **asdict(control)}, pk="lineage")


def _named(phase: Phase) -> str:
    return f"{phase.epoch}-{phase.round}-{phase.task}"


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
