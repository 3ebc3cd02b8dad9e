"""What the rounds are made of: the state, the events that change it, the effects that follow. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from floe.messages import Phase
from floe.plan import Plan
from floe.selection import EVERYBODY

Stage = Literal["waiting", "open", "closing", "finished"]
Held = Literal["", "paused", "stopped"]


@dataclass(frozen=True)
class State:
    """Where the federation is. Times are in the caller's monotonic seconds.

    `needed` devices open the phase; `unheard` are devices that were there before a restart, and have not said since
    whether they still are: until `not_before` they are waited for. `settled_at`: since when the open phase could
    close, but for those that may still come. `merged` counts accepted updates of earlier rounds. `plan` is what the
    phase was opened with.
    """

    phase: Phase
    needed: int = 1
    stage: Stage = "waiting"
    last: int = 1
    held: Held = ""
    online: frozenset[str] = frozenset()
    unheard: frozenset[str] = frozenset()
    not_before: float = 0.0
    expected: frozenset[str] = frozenset()
    bar: str = EVERYBODY
    accepted: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    merged: int = 0
    deadline: float = 0.0
    settled_at: float | None = None
    plan: Plan = field(default_factory=Plan)

    def seconds_left(self, now: float) -> float:
        """Until the deadline; before the phase opens, until it may."""
        return max((self.deadline if self.stage == "open" else self.not_before) - now, 0.0)


@dataclass(frozen=True)
class Online:
    """A device said that it is there."""

    device: str


@dataclass(frozen=True)
class Offline:
    """A device, or its will, said that it is not."""

    device: str


@dataclass(frozen=True)
class Answered:
    """A device has its answer: accepted, or refused for good. `late`: for an update of an earlier round."""

    device: str
    accepted: bool
    late: bool = False


@dataclass(frozen=True)
class Steered:
    """The operator's wish is recorded. `start`: with whoever is there, and to round `last`. `promote`: `last` is the
    last round from now on. `plan`: the policy has another plan."""

    action: Literal["start", "stop", "pause", "resume", "plan", "promote"]
    last: int


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Closed:
    """The phase's result is written and recorded. `enough`: a reason to train no further."""

    has_model: bool = True
    enough: str = ""


@dataclass(frozen=True)
class Voided:
    """It is recorded that the phase came to nothing. `enough`: a reason to train no further."""

    enough: str = ""


Event = Online | Offline | Answered | Steered | Tick | Closed | Voided


@dataclass(frozen=True)
class Open:
    """Record and publish the phase of the new state."""


@dataclass(frozen=True)
class Wait:
    """Tell that the phase of the new state is the next, and is not open yet."""


@dataclass(frozen=True)
class Tell:
    """Tell what an operator has changed for the phases to come: the plan, the present model."""


@dataclass(frozen=True)
class Extend:
    """Tell that the round goes on."""


@dataclass(frozen=True)
class Close:
    """Aggregate what was accepted, record it, then send `Closed`."""


@dataclass(frozen=True)
class Void:
    """Record that the phase came to nothing, then send `Voided`."""


@dataclass(frozen=True)
class Finish:
    """Publish that all is done."""


Effect = Open | Wait | Tell | Extend | Close | Void | Finish
