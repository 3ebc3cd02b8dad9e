"""What operators ask for, signed: who may ask, what is remembered of it, how the rounds answer.

The wish is on disk before it is followed, so that a paused federation stays paused over a restart. A refusal is kept
too: whoever repeats the command later, when it would make sense, is refused as its operator was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from aggregator.choices import Choice, Choices
from aggregator.control import Control, named
from aggregator.phases import MEASURING, Policy
from aggregator.rounds import missing, needed, quorum_of
from aggregator.states import Held, State, Steered
from floe.errors import Refused
from floe.messages import Command
from floe.operators import Operators
from floe.plan import Plan
from floe.sqlite import Database
from floe.store import durably, now

HELD: dict[str, Held] = {"start": "", "resume": "", "pause": "paused", "stop": "stopped"}


@dataclass(frozen=True)
class Verdict:
    """What became of a command: whether it was followed, in words, why not, and the event for the rounds."""

    done: bool
    detail: str
    reason: str = ""
    steered: Steered | None = None


class Steering:
    """The commands of operators for one lineage. Raises `sqlite3.Error` when the disk refuses.

    `policy` everywhere is that of floe.toml. `check_model` and `spent` are those of `choices.Choices`.
    """

    def __init__(
        self, db: Database, lineage: str, operators: Callable[[], Operators], tell: Callable[[str], None],
        check_model: Callable[[Mapping[str, Any]], None], spent: Callable[[Plan], str],
    ) -> None:  # fmt: skip
        self._db = db
        self._lineage = lineage
        self._read = operators
        self._tell = tell
        self._choices = Choices(db, lineage, check_model, spent)
        self._fault = ""

    def control(self) -> Control:
        columns = ", ".join(field.name for field in fields(Control))
        sql = f"SELECT {columns} FROM control WHERE lineage = ?"  # noqa: S608 (names of ours)
        row = self._db.execute(sql, [self._lineage]).fetchone()
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
            "plan": self.control().policy(policy).plan,
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
        given = {"plan": command.plan is not None, "promote": bool(command.model)}
        for action, there in given.items():
            if there != (action == command.action):
                raise Refused("malformed", f"{action!r} goes with what it asks for, and that with it alone")
        match command.action:
            case "plan" if command.plan is not None:
                return self._remember(self._choices.plan(command.plan, self.control(), state, policy))
            case "promote":
                return self._remember(self._choices.model(command.model, self.control(), state, policy))
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
        words = {"pause": "the open round goes on, no other opens", "stop": "stopped", "resume": "the rounds go on"}
        steered = Steered(command.action, state.last)
        return self._remember(Choice(words[command.action], steered, replace(self.control(), held=held)))

    def _start(self, command: Command, state: State, policy: Policy) -> tuple[Steered | None, str]:
        finished, round_ = state.stage == "finished", state.phase.round
        done = round_ if finished or state.phase.task in MEASURING else max(round_ - 1, 0)
        more = command.rounds or (policy.rounds.count if finished else 0)
        last = done + more if more else max(state.last, round_, 1)
        if last == state.last and not state.held and state.stage != "waiting":
            return None, f"nothing changes: {describe(state, policy)}"
        if more or state.phase.task not in MEASURING:
            self._choices.affordable(self.control().policy(policy).plan)
        control = replace(
            self.control(), held="", last=last, since=done, count=policy.rounds.count,
            opens=named(state.phase) if state.stage == "waiting" else "",
        )  # fmt: skip
        return self._remember(Choice(f"started, to round {last}", Steered("start", last), control))

    def _remember(self, choice: Choice) -> tuple[Steered | None, str]:
        if choice.control is not None:
            self._db.table("control").upsert({"lineage": self._lineage, **asdict(choice.control)}, pk="lineage")
        return choice.steered, choice.detail


def describe(state: State, policy: Policy) -> str:
    """Where the rounds stand, in words."""
    phase = f"{state.phase.task} {state.phase.round} of {state.last}"
    if state.stage == "finished":
        return f"all is done, {state.phase.round} rounds"
    if state.held:
        return f"{state.held} before {phase}" if state.stage == "waiting" else f"{phase} is open, then {state.held}"
    if state.stage == "waiting":
        return f"waiting with {phase} for {needed(state, policy)} device(s), {len(state.online)} online"
    return f"{phase} is open: {len(state.accepted)} accepted, {missing(state, policy)} more needed"
