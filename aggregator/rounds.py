"""The rounds as a pure state machine: `step(state, event, policy) -> (state, effects)`. No clock, no file, no socket.

The life of a federation is a chain of phases:

    sums (0)  ->  init (0)  ->  train (1) ... train (n)  ->  evaluate (n)  ->  finished
    if scaled     if no model

and each phase is one of these stages:

    stage      event                                     next       effects
    waiting    enough devices online                     open       Open
    open       every expected device has its answer      closing    Close   (init: the first accepted)
    open       deadline, quorum accepted                 closing    Close
    open       deadline, below the quorum                open       Extend
    closing    Closed (the model is written)             waiting, or finished    Finish
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from floe.config import Rounds
from floe.messages import Phase, Task
from floe.plan import Plan
from floe.selection import draw_for, takes_part

Stage = Literal["waiting", "open", "closing", "finished"]


@dataclass(frozen=True)
class Policy:
    """What the operator chose. `rounds` says who, how many and how long; `plan` what is done."""

    rounds: Rounds
    plan: Plan


@dataclass(frozen=True)
class State:
    """Where the federation is. `deadline` is in the caller's monotonic seconds."""

    phase: Phase
    stage: Stage = "waiting"
    online: frozenset[str] = frozenset()
    expected: frozenset[str] = frozenset()
    draw: int = 0
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


Event = Online | Offline | Answered | Tick | Closed


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
class Finish:
    """Publish that all is done."""


Effect = Open | Extend | Close | Finish


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
        case Closed() if state.stage == "closing":
            following = phase_after(state.phase, policy, has_model=has_model)
            if following is None:
                return Next(replace(state, stage="finished"), (Finish(),))
            state = State(following, online=state.online)
    if state.stage == "waiting":
        return _maybe_open(state, policy, now)
    if state.stage == "open":
        return _maybe_close(state, policy, now)
    return Next(state)


def _maybe_open(state: State, policy: Policy, now: float) -> Next:
    rounds = policy.rounds
    ready = {d for d in state.online if not rounds.members or d in rounds.members}
    # Only the first phase waits for all: later ones must not hang on a device that died.
    needed = rounds.devices if state.phase.round <= 1 else max(rounds.quorum, 1)
    if len(ready) < needed:
        return Next(state)
    whole = state.phase.task != "train"
    fraction = 1.0 if whole else rounds.fraction
    draw = draw_for(ready, state.phase, policy.plan.seed, fraction, rounds.members)
    expected = frozenset(
        d for d in ready if takes_part(d, state.phase, policy.plan.seed, draw, fraction, rounds.members)
    )
    opened = replace(state, stage="open", expected=expected, draw=draw, deadline=now + rounds.deadline_s)
    return Next(opened, (Open(),))


def _maybe_close(state: State, policy: Policy, now: float) -> Next:
    answered = state.accepted | state.refused
    all_in = state.expected <= answered or state.phase.task == "init"
    if all_in and state.accepted:
        return Next(replace(state, stage="closing"), (Close(),))
    if now < state.deadline:
        return Next(state)
    if len(state.accepted) >= max(quorum_of(state, policy), 1):
        return Next(replace(state, stage="closing"), (Close(),))
    reason = f"{len(state.accepted)} of {quorum_of(state, policy)} updates after {policy.rounds.deadline_s:g} s"
    return Next(replace(state, deadline=now + policy.rounds.deadline_s), (Extend(reason),))


def quorum_of(state: State, policy: Policy) -> int:
    """How many accepted updates close the phase at its deadline; without a number, all that are still there."""
    if policy.rounds.quorum:
        return min(policy.rounds.quorum, len(state.expected))
    return len(state.expected & (state.online | state.accepted) - state.refused)
