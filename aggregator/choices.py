"""What an operator may choose for the phases to come: the plan, and the global model that they start from.

What would not fit the chain of models as it is, is refused. Reads the log; what is chosen is remembered by `steering`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aggregator.control import Control, as_json
from aggregator.phases import MEASURING, Policy, phase_after
from aggregator.states import State, Steered
from floe.accounting import unaffordable
from floe.errors import Refused
from floe.messages import Phase
from floe.plan import Plan
from floe.soundness import faults
from floe.sqlite import Database
from floe.store import place_of, present_model

PHASES_HANG_ON = frozenset({"report", "scaling"})  # keys of the plan: which phases there are
MODELS_HANG_ON = frozenset({"model", "hidden", "personal", "schema"})  # whether a model that is there would fit


@dataclass(frozen=True)
class Choice:
    """What becomes of a wish, in words, for the rounds, and as it is remembered; None: nothing changes."""

    detail: str
    steered: Steered | None = None
    control: Control | None = None


class Choices:
    """The choices for one lineage. `check_model` raises `Refused` for a row of a model that cannot be used.

    `spent` says in words why a plan affords no more rounds, empty if it does.
    """

    def __init__(
        self, db: Database, lineage: str, check_model: Callable[[Mapping[str, Any]], None], spent: Callable[[Plan], str]
    ) -> None:
        self._db = db
        self._lineage = lineage
        self._check_model = check_model
        self._spent = spent

    def affordable(self, plan: Plan) -> None:
        """Whether another round of a plan is within its budget. Raises `Refused`."""
        if spent := self._spent(plan):
            raise Refused("round", f"no round can open: {spent}; raise [plan] epsilon (`floe plan set`), or end here")

    def plan(self, plan: Plan, control: Control, state: State, policy: Policy) -> Choice:
        """Another plan, from the next phase that opens. `policy` is that of floe.toml. Raises `Refused`."""
        present = control.policy(policy).plan
        keys = changed(present, plan)
        if not keys:
            return Choice("nothing changes: this is the plan already")
        self._check_plan(keys, state.phase, policy)
        for fault in faults(plan, policy.rounds):
            raise Refused("round", fault)
        for fault in unaffordable(plan):
            raise Refused("round", fault)
        self.affordable(plan)
        mine, over = ("", "") if plan == policy.plan else (as_json(plan), as_json(policy.plan))
        remembered = replace(control, plan=mine, plan_over=over)
        return Choice(f"{in_words(keys, plan)}: counts {_from(state, policy)}", Steered("plan", state.last), remembered)

    def model(self, sha256: str, control: Control, state: State, policy: Policy) -> Choice:
        """Another global model as the present one, between rounds. Raises `Refused`.

        The stop criteria begin anew, as after a start. Where the last round is over, it stays so.
        """
        epoch, over = state.phase.epoch, state.stage == "finished" or state.phase.task in MEASURING
        if state.stage not in ("waiting", "finished"):
            open_ = f"{state.phase.task} {state.phase.round} is open"
            raise Refused("round", f"{open_}, and starts from the present model: pause or stop the rounds first")
        row = self._row(sha256, epoch)
        name = f"model {row['round']} ({sha256[:12]})"
        present = present_model(self._db, self._lineage, epoch)
        if present is not None and present["sha256"] == sha256:
            return Choice(f"nothing changes: {name} is the present one")
        self._check_model(row)
        (newest,) = self._db.execute(
            "SELECT max(round) FROM models WHERE lineage = ? AND epoch = ?", [self._lineage, epoch]
        ).fetchone()
        control = replace(control, since=newest, model=sha256, model_after=place_of(epoch, newest))
        last = state.phase.round if over else state.last
        if over:
            control = replace(control, last=last, count=policy.rounds.count)
        return Choice(f"{name} is the present one: the next round starts from it", Steered("promote", last), control)

    def _check_plan(self, given: set[str], phase: Phase, policy: Policy) -> None:
        begun = self._has_model(phase)
        anew = "begin a new lineage with it" if begun else "set it in floe.toml, and start the aggregator again"
        if keys := given & PHASES_HANG_ON:
            raise Refused("round", f"{_words(keys)} cannot be changed: which phases there are hangs on it; {anew}")
        if (keys := given & MODELS_HANG_ON) and (begun or policy.rounds.initial):
            raise Refused("round", f"{_words(keys)} cannot be changed: the model that is there would not fit; {anew}")

    def _has_model(self, phase: Phase) -> bool:
        """Whether there is a model, one that is being made, or, where none leaves the devices, one on each of them."""
        sql = (
            "SELECT EXISTS (SELECT * FROM models WHERE (lineage, epoch) = (:lineage, :epoch)) OR EXISTS (SELECT * FROM "
            "rounds WHERE lineage = :lineage AND (task = 'train' OR (task = 'init' AND epoch = :epoch)))"
        )
        return bool(self._db.execute(sql, {"lineage": self._lineage, "epoch": phase.epoch}).fetchone()[0])

    def _row(self, sha256: str, epoch: int) -> dict[str, Any]:
        sql = "SELECT * FROM models WHERE lineage = ? AND epoch = ? AND sha256 = ? ORDER BY round DESC LIMIT 1"
        for row in self._db.query(sql, [self._lineage, epoch, sha256]):
            return row
        raise Refused("base", f"{sha256[:12]} is no global model of {self._lineage!r} in epoch {epoch}")


def changed(before: Plan, plan: Plan) -> set[str]:
    """The keys in which two plans differ."""
    return {key for key in Plan.__struct_fields__ if getattr(plan, key) != getattr(before, key)}


def in_words(keys: set[str], plan: Plan) -> str:
    """What a plan has for these keys."""
    return ", ".join(f"{key} = {getattr(plan, key)}" for key in Plan.__struct_fields__ if key in keys)


def _words(keys: set[str]) -> str:
    return " and ".join(sorted(keys))


def _from(state: State, policy: Policy) -> str:
    """From which phase on a change counts, in words."""
    if state.stage == "waiting":
        return f"from {state.phase.task} {state.phase.round} on"
    has_model = bool(policy.rounds.initial)  # of `sums` it is asked
    following = phase_after(state.phase, policy, last=state.last, has_model=has_model)
    if state.stage == "finished" or following is None:
        return f"from train {state.phase.round + 1} on, should more rounds be started"
    return f"from {following.task} {following.round} on; {state.phase.task} {state.phase.round} keeps its own"
