"""The rounds as a pure state machine: `step(state, event, policy, now) -> (state, effects)`. No clock, file or socket.

The life of a federation is a chain of phases:

    sums (0)  ->  init (0)  ->  train (1) ... train (n)  ->  evaluate (n)  ->  finished
    if scaled     if no model

and each phase goes through these stages:

    stage      event                                         next       effects
    waiting    enough devices online                         open       Open
    open       every expected device has its answer          closing    Close   (init: the first accepted)
    open       deadline, quorum accepted                     closing    Close
    open       deadline, below the quorum                    open       Extend
    open       deadline, every expected device was refused   closing    Void
    closing    Closed (the model is written)                 waiting, or finished    Finish
    closing    Voided (train, evaluate)                      waiting, or finished    Finish
    closing    Voided (sums, init)                           waiting, in a new epoch

Enough are `rounds.devices` for the first phase of an epoch and a quorum, at least one, for all others: those must not
hang on a device that died.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from floe.messages import Phase, Task
from floe.plan import Plan
from floe.selection import EVERYBODY, bar_for, takes_part
from floe.settings import Rounds

Stage = Literal["waiting", "open", "closing", "finished"]


@dataclass(frozen=True)
class Policy:
    """What the operator chose. `rounds` says who, how many and how long; `plan` what is done."""

    rounds: Rounds
    plan: Plan


@dataclass(frozen=True)
class State:
    """Where the federation is. `needed` devices open the phase; `deadline` is in the caller's monotonic seconds."""

    phase: Phase
    needed: int = 1
    stage: Stage = "waiting"
    online: frozenset[str] = frozenset()
    expected: frozenset[str] = frozenset()
    bar: str = EVERYBODY
    accepted: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    deadline: float = 0.0


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
    """A device of the open phase has its answer: accepted, or refused for good."""

    device: str
    accepted: bool


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Closed:
    """The phase's result is written and recorded."""


@dataclass(frozen=True)
class Voided:
    """It is recorded that the phase came to nothing."""


Event = Online | Offline | Answered | Tick | Closed | Voided


@dataclass(frozen=True)
class Open:
    """Record and publish the phase of the new state."""


@dataclass(frozen=True)
class Extend:
    """Tell that the round goes on, and why."""

    reason: str


@dataclass(frozen=True)
class Close:
    """Aggregate what was accepted, record it, then send `Closed`."""


@dataclass(frozen=True)
class Void:
    """Record that the phase came to nothing, then send `Voided`."""


@dataclass(frozen=True)
class Finish:
    """Publish that all is done."""


Effect = Open | Extend | Close | Void | Finish


@dataclass(frozen=True)
class Next:
    """A state and what is to be done."""

    state: State
    effects: tuple[Effect, ...] = field(default=())


def first_phase(lineage: str, epoch: int, policy: Policy, *, model: int | None, scaled: bool) -> Phase:
    """Where a chain begins: `model` is the round of the newest global model, None if there is none."""
    task: Task = "train"
    if policy.plan.report == "weights" and model is None:
        task = "init" if scaled or policy.plan.scaling == "none" else "sums"
    return Phase(lineage, epoch, (model or 0) + 1 if task == "train" else 0, task)


def phase_after(phase: Phase, policy: Policy, *, has_model: bool) -> Phase | None:
    """The phase that follows; None after the last."""
    if phase.task == "sums" and not has_model:
        return Phase(phase.lineage, phase.epoch, 0, "init")
    if phase.task in ("sums", "init"):
        return Phase(phase.lineage, phase.epoch, 1, "train")
    if phase.task in ("train", "evaluate") and phase.round < policy.rounds.count:
        return Phase(phase.lineage, phase.epoch, phase.round + 1, "train")
    if phase.task == "train" and policy.plan.report == "weights":
        return Phase(phase.lineage, phase.epoch, phase.round, "evaluate")
    return None


def step(state: State, event: Event, policy: Policy, now: float, *, has_model: bool = True) -> Next:
    """The next state and its effects. Deterministic: the same inputs give the same result."""
    match event:
        case Online(device):
            state = replace(state, online=state.online | {device})
        case Offline(device):
            state = replace(state, online=state.online - {device})
        case Answered(device, accepted) if state.stage == "open" and device not in state.accepted | state.refused:
            where = "accepted" if accepted else "refused"
            state = replace(state, **{where: getattr(state, where) | {device}})
        case Closed() | Voided() if state.stage == "closing":
            following = _following(state.phase, event, policy, has_model=has_model)
            if following is None:
                return Next(replace(state, stage="finished"), (Finish(),))
            begins = following.epoch != state.phase.epoch
            needed = policy.rounds.devices if begins else max(policy.rounds.quorum, 1)
            state = State(following, needed, online=state.online)
    if state.stage == "waiting":
        return _maybe_open(state, policy, now)
    if state.stage == "open":
        return _maybe_close(state, policy, now)
    return Next(state)


def _following(phase: Phase, event: Closed | Voided, policy: Policy, *, has_model: bool) -> Phase | None:
    if isinstance(event, Voided) and phase.round == 0:
        # Devices take part in a phase once: those that were refused get another chance in another epoch.
        return first_phase(phase.lineage, phase.epoch + 1, policy, model=None, scaled=False)
    return phase_after(phase, policy, has_model=has_model)


def _maybe_open(state: State, policy: Policy, now: float) -> Next:
    rounds, seed = policy.rounds, policy.plan.seed
    ready = {d for d in state.online if not rounds.members or d in rounds.members}
    if len(ready) < state.needed:
        return Next(state)
    fraction = rounds.fraction if state.phase.task == "train" else 1.0
    bar = bar_for(ready, state.phase, seed, fraction, rounds.members)
    expected = frozenset(d for d in ready if takes_part(d, state.phase, seed, bar, rounds.members))
    opened = replace(state, stage="open", expected=expected, bar=bar, deadline=now + rounds.deadline_s)
    return Next(opened, (Open(),))


def _maybe_close(state: State, policy: Policy, now: float) -> Next:
    closing, answered = replace(state, stage="closing"), state.accepted | state.refused
    all_in = state.expected <= answered or state.phase.task == "init"
    if all_in and state.accepted:
        return Next(closing, (Close(),))
    if now < state.deadline:
        return Next(state)
    if missing(state, policy) == 0:
        return Next(closing, (Close(),))
    if not state.accepted and state.expected <= state.refused:
        return Next(closing, (Void(),))
    reason = f"{missing(state, policy)} more updates are needed, {len(state.accepted)} were accepted"
    return Next(replace(state, deadline=now + policy.rounds.deadline_s), (Extend(reason),))


def missing(state: State, policy: Policy) -> int:
    """How many more accepted updates let the phase close at its deadline.

    With a quorum, whatever device they come from. Without one, those of all expected devices that are still online;
    and one at least.
    """
    if policy.rounds.quorum:
        return max(min(policy.rounds.quorum, len(state.expected)) - len(state.accepted), 0)
    silent = (state.expected & state.online) - state.accepted - state.refused
    return len(silent) if state.accepted else max(len(silent), 1)


def quorum_of(state: State, policy: Policy) -> int:
    """The quorum as the round document tells it."""
    return max(missing(state, policy) + len(state.accepted), 1)
