"""The operators' wishes as they are remembered, in the table `control`. Data only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from aggregator.phases import Policy
from aggregator.states import Held
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Rounds
from floe.soundness import faults


@dataclass(frozen=True)
class Control:
    """What is remembered: what is held, the last round, the round of the last start.

    `last` was chosen while `rounds.count` was `count`: when that is changed afterwards, it counts again. `opens` names
    the phase that was waiting at the last start: it opens with whichever devices are online. `plan` (JSON) is in the
    place of `plan_over`, floe.toml's, as long as that stays, and it goes together with [rounds]. `model` (SHA-256) is
    the present one until a newer is made than that at the place `model_after`.
    """

    held: Held = ""
    last: int = 0
    since: int = 0
    count: int = 0
    opens: str = ""
    plan: str = ""
    plan_over: str = ""
    model: str = ""
    model_after: str = ""

    def policy(self, configured: Policy) -> Policy:
        """What counts for the next phase that opens."""
        if not self.plan or self.plan_over != as_json(configured.plan):
            return configured
        plan = msgspec.json.decode(self.plan, type=Plan)
        return configured if any(faults(plan, configured.rounds)) else replace(configured, plan=plan)

    def last_round(self, rounds: Rounds) -> int:
        """The last round to train."""
        return self.last if self.last and self.count == rounds.count else rounds.count

    def starts(self, phase: Phase) -> bool:
        """Whether a phase that has not opened yet was started by the operator."""
        return self.opens == named(phase)


def named(phase: Phase) -> str:
    """A phase as `Control.opens` has it."""
    return f"{phase.epoch}-{phase.round}-{phase.task}"


def as_json(plan: Plan) -> str:
    """A plan as `Control.plan` has it."""
    return msgspec.json.encode(plan).decode()
