"""The rounds as a pure state machine: `step(state, event, policy, now) -> (state, effects)`. No clock, file or socket.

An event first becomes a fact of the state (`_note`); then the rows of `TABLE` are tried from the top, and the first
that holds changes the stage and has an effect, until none holds any more. PROTOCOL.md, 5.3, shows the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aggregator.phases import MEASURING, Policy, first_phase, phase_after
from aggregator.states import (
    Answered,
    Close,
    Closed,
    Effect,
    Event,
    Extend,
    Finish,
    Offline,
    Online,
    Open,
    Stage,
    State,
    Steered,
    Tick,
    Void,
    Voided,
    Wait,
)
from floe.messages import Phase
from floe.selection import bar_for, takes_part
from floe.soundness import least_updates


@dataclass(frozen=True)
class Next:
    """A state and what is to be done."""

    state: State
    effects: tuple[Effect, ...] = field(default=())


@dataclass(frozen=True)
class Row:
    """One line of the table: in `stage`, `when` this `holds`, the stage becomes `to`."""

    stage: Stage
    when: str
    holds: Callable[[State, Event, Policy, float], bool]
    to: Stage
    effect: Effect


def step(state: State, event: Event, policy: Policy, now: float) -> Next:
    """The next state and its effects. Deterministic: the same inputs give the same result."""
    state, effects = _note(state, event, policy, now), []
    while row := next((r for r in TABLE if r.stage == state.stage and r.holds(state, event, policy, now)), None):
        state = _enter(row, state, event, policy, now)
        effects.append(row.effect)
        event = Tick()
    return Next(state, tuple(effects))


def missing(state: State, policy: Policy) -> int:
    """How many more accepted updates let the phase close.

    With a quorum, whatever device they come from. Without one, those of all expected devices that are still online.
    Never fewer than the rule of the phase's plan needs: one at least.
    """
    least = _least(state, policy)
    if policy.rounds.quorum:
        quorum = min(policy.rounds.quorum, len(state.expected))
        return max(quorum - len(state.accepted), least - len(state.accepted), 0)
    silent = (state.expected & state.online) - state.accepted - state.refused
    return max(len(silent), least - len(state.accepted))


def needed(state: State, policy: Policy) -> int:
    """How many devices open the phase: never fewer than the rule of its plan needs updates."""
    return max(state.needed, _least(state, policy))


def next_due(state: State, policy: Policy) -> float | None:
    """When a `Tick` may change something; None: not by time alone."""
    if state.stage == "waiting":
        return state.not_before + (policy.rounds.grace_s if state.unheard else 0.0)
    return min(_grace_ends(state, policy), state.deadline) if state.stage == "open" else None


def quorum_of(state: State, policy: Policy) -> int:
    """The quorum as the round document tells it."""
    return max(missing(state, policy) + len(state.accepted), 1)


def staleness_of(phase: Phase, state: State, policy: Policy) -> int | None:
    """How many rounds an update of `phase` is behind what it would now be merged into; None: it is not taken."""
    now = state.phase
    if phase == now:
        return 0 if state.stage == "open" else None
    behind = now.round - phase.round
    same_chain = (phase.lineage, phase.epoch, phase.task, now.task) == (now.lineage, now.epoch, "train", "train")
    return behind if same_chain and state.stage != "finished" and 1 <= behind <= policy.max_staleness else None


def has_answer(device: str, state: State) -> bool:
    """Whether a device's update of the open phase was accepted or refused."""
    return device in state.accepted or device in state.refused


def _note(state: State, event: Event, policy: Policy, now: float) -> State:
    match event:
        case Online(device):
            if device not in state.online or device in state.unheard:  # a thousand statuses copy no sets of a thousand
                state = replace(state, online=state.online | {device}, unheard=state.unheard - {device})
        case Offline(device):
            state = replace(state, online=state.online - {device}, unheard=state.unheard - {device})
        case Answered(late=True, accepted=accepted):
            state = replace(state, merged=state.merged + accepted)
        case Answered(device, accepted) if state.stage == "open" and not has_answer(device, state):
            where = "accepted" if accepted else "refused"
            state = replace(state, **{where: getattr(state, where) | {device}})
        case Steered("start", last):
            state = replace(state, held="", last=last, needed=1, unheard=frozenset(), not_before=now)
        case Steered("resume"):
            state = replace(state, held="")
        case Steered("promote", last):
            state = replace(state, last=last)
        case Steered("pause" | "stop" as action):
            state = replace(state, held="paused" if action == "pause" else "stopped")
    settled = state.stage == "open" and (_enough(state, policy) or _all_have_answers(state))
    since = now if state.settled_at is None else state.settled_at
    return replace(state, settled_at=since if settled else None)


def _enter(row: Row, state: State, event: Event, policy: Policy, now: float) -> State:
    match row.effect:
        case Open():
            return _opened(state, policy, now)
        case Extend():
            return _extended(state, policy, now)
        case Wait():
            following = _following(state, event, policy)
            assert following is not None
            begins, started = following.epoch != state.phase.epoch, isinstance(event, Steered)
            quorum = 1 if policy.asynchronous and following.task == "train" else max(policy.rounds.quorum, 1)
            needed = policy.rounds.devices if begins else quorum
            return State(
                following, 1 if started else needed, last=state.last, held=state.held, online=state.online,
                unheard=state.unheard, not_before=now if started else now + policy.rounds.pause_s,
            )  # fmt: skip
        case Finish():
            return replace(state, stage="finished", last=state.phase.round)
    return replace(state, stage=row.to)


def _opened(state: State, policy: Policy, now: float) -> State:
    rounds, seed, ready = policy.rounds, policy.plan.seed, _ready(state, policy)
    fraction = _fraction(state, policy, len(ready))
    bar = bar_for(ready, state.phase, seed, fraction, rounds.members)
    expected = frozenset(d for d in ready if takes_part(d, state.phase, seed, bar, rounds.members))
    deadline = now + rounds.deadline_s
    return replace(state, stage="open", expected=expected, bar=bar, deadline=deadline, plan=policy.plan)


def _extended(state: State, policy: Policy, now: float) -> State:
    """A new deadline; in place of selected devices that are gone, others are selected."""
    rounds, seed, ready = policy.rounds, state.plan.seed, _ready(state, policy) - state.refused
    fraction = _fraction(state, policy, len(ready))
    bar = max(state.bar, bar_for(ready, state.phase, seed, fraction, rounds.members)) if ready else state.bar
    more = {d for d in ready if takes_part(d, state.phase, seed, bar, rounds.members)}
    return replace(state, bar=bar, expected=state.expected | more, deadline=now + rounds.deadline_s)


def _following(state: State, event: Event, policy: Policy) -> Phase | None:
    phase = state.phase
    if isinstance(event, Voided) and phase.round == 0:
        # Devices take part in a phase once: those that were refused get another chance in another epoch.
        return first_phase(phase.lineage, phase.epoch + 1, policy, model=None, scaled=False)
    has_model = event.has_model if isinstance(event, Closed) else True
    enough = event.enough if isinstance(event, Closed | Voided) else ""
    return phase_after(phase, policy, last=state.last, has_model=has_model, enough=enough)


def _ready(state: State, policy: Policy) -> frozenset[str]:
    members = policy.rounds.members
    return state.online & frozenset(members) if members else state.online


def _may_open(state: State, _event: Event, policy: Policy, now: float) -> bool:
    heard = not state.unheard or now >= state.not_before + policy.rounds.grace_s
    return not state.held and now >= state.not_before and heard and len(_ready(state, policy)) >= needed(state, policy)


def _least(state: State, policy: Policy) -> int:
    """Fewer accepted updates are no phase, whatever the quorum: by the rule of the plan that it has, or will have."""
    plan = state.plan if state.stage in ("open", "closing") else policy.plan
    return least_updates(plan) if state.phase.task == "train" else 1


def _fraction(state: State, policy: Policy, ready: int) -> float:
    """Which share of the devices is selected: no fewer than the rule needs, where there are as many."""
    if state.phase.task != "train" or not ready:
        return 1.0
    least = _least(state, policy)
    return min(max(policy.rounds.fraction, (least + 0.5) / ready), 1.0) if least > 1 else policy.rounds.fraction


def _has_quorum(state: State, policy: Policy) -> bool:
    return bool(state.accepted) and _enough(state, policy)


def _enough(state: State, policy: Policy) -> bool:
    """Whether `missing` is 0, without counting: it is asked at every event, of thousands of devices."""
    if policy.rounds.quorum:
        return missing(state, policy) == 0
    enough = len(state.accepted) >= _least(state, policy)
    return enough and all(has_answer(d, state) for d in state.expected if d in state.online)


def _all_have_answers(state: State) -> bool:
    return bool(state.expected) and all(has_answer(d, state) for d in state.expected)


def _waited(state: State, policy: Policy, now: float) -> bool:
    return now >= min(_grace_ends(state, policy), state.deadline)


def _grace_ends(state: State, policy: Policy) -> float:
    return math.inf if state.settled_at is None else state.settled_at + policy.rounds.grace_s


def _at_once(state: State, policy: Policy) -> bool:
    return policy.asynchronous and state.phase.task == "train" and bool(state.accepted or state.merged)


def _ended(event: Event) -> bool:
    return isinstance(event, Closed | Voided)


def _more(state: State) -> bool:
    return not state.held and state.phase.task in ("train", *MEASURING) and state.phase.round < state.last


TABLE = (
    Row("waiting", "enough devices are online, nothing holds the rounds, the pause is over",
        _may_open, "open", Open()),
    Row("open", "the operator stopped the rounds, a quorum is accepted",
        lambda s, e, p, now: s.held == "stopped" and _has_quorum(s, p), "closing", Close()),
    Row("open", "the operator stopped the rounds",
        lambda s, e, p, now: s.held == "stopped", "closing", Void()),
    Row("open", "init: the first update is accepted",
        lambda s, e, p, now: s.phase.task == "init" and bool(s.accepted), "closing", Close()),
    Row("open", "train, asynchronous: an update is accepted, also of an earlier round",
        lambda s, e, p, now: _at_once(s, p), "closing", Close()),
    Row("open", "every expected device has its answer, a quorum is accepted",
        lambda s, e, p, now: _all_have_answers(s) and _has_quorum(s, p), "closing", Close()),
    Row("open", "a quorum is accepted, the grace or the deadline is over",
        lambda s, e, p, now: _has_quorum(s, p) and _waited(s, p, now), "closing", Close()),
    Row("open", "every expected device has its answer, below the quorum, the grace or the deadline is over",
        lambda s, e, p, now: _all_have_answers(s) and _waited(s, p, now), "closing", Void()),
    Row("open", "the deadline is over, as many updates as the rule needs are accepted, no quorum is set",
        lambda s, e, p, now: now >= s.deadline and not p.rounds.quorum and len(s.accepted) >= _least(s, p),
        "closing", Close()),
    Row("open", "the deadline is over, below the quorum, `below_quorum` is `void`",
        lambda s, e, p, now: now >= s.deadline and p.rounds.below_quorum == "void", "closing", Void()),
    Row("open", "the deadline is over, below the quorum",
        lambda s, e, p, now: now >= s.deadline, "open", Extend()),
    Row("closing", "the end of the phase is recorded, another follows",
        lambda s, e, p, now: _ended(e) and _following(s, e, p) is not None, "waiting", Wait()),
    Row("closing", "the end of the phase is recorded, none follows",
        lambda s, e, p, now: _ended(e), "finished", Finish()),
    Row("finished", "the operator asks for more rounds",
        lambda s, e, p, now: _more(s), "waiting", Wait()),
)  # fmt: skip
