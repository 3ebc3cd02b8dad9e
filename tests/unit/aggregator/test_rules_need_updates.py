"""No phase opens or closes with fewer updates than the rule of its plan needs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.phases import Policy
from aggregator.rounds import missing, needed, quorum_of, step
from aggregator.standing import standing_of
from aggregator.states import Answered, Close, Event, Extend, Online, Open, State, Steered, Tick, Void
from aggregator.steering import describe
from floe.messages import Phase
from floe.plan import Plan
from floe.selection import takes_part
from floe.settings import Rounds

TRAIN = Phase("main", 1, 1, "train")
KRUM = Plan(rule="krum", byzantine=1)  # needs 5
DEVICES = "abcdefgh"


def policy(plan: Plan = KRUM, **rounds: Any) -> Policy:
    return Policy(Rounds(**({"devices": 5, "grace_s": 5.0, "deadline_s": 60.0, "count": 9} | rounds)), plan)


def after(state: State, chosen: Policy, now: float, *events: Event) -> tuple[State, list[Any]]:
    effects: list[Any] = []
    for event in events:
        following = step(state, event, chosen, now)
        state, effects = following.state, [*effects, *following.effects]
    return state, effects


def opened(chosen: Policy, devices: str) -> State:
    state, effects = after(State(TRAIN, needed=len(devices), last=9), chosen, 0.0, *map(Online, devices))
    assert effects == [Open()]
    return state


def yes(devices: str) -> list[Event]:
    return [Answered(device, accepted=True) for device in devices]


def test_a_phase_waits_for_as_many_devices_as_its_rule_needs_also_when_the_operator_starts_it() -> None:
    chosen = policy()
    state, effects = after(State(TRAIN, last=9), chosen, 0.0, *map(Online, "abcd"), Steered("start", 9))
    assert (state.stage, effects) == ("waiting", [])
    assert (needed(state, chosen), standing_of(state, chosen)["needed"], quorum_of(state, chosen)) == (5, 5, 5)
    assert describe(state, chosen) == "waiting with train 1 of 9 for 5 device(s), 4 online"
    assert after(state, chosen, 0.0, Online("e"))[1] == [Open()]
    assert after(State(replace_task("sums"), last=9), chosen, 0.0, Online("a"))[1] == [Open()]


def replace_task(task: Any) -> Phase:
    return Phase("main", 1, 0, task)


@pytest.mark.parametrize("rounds", [{}, {"quorum": 5}, {"quorum": 7}])
def test_at_its_deadline_a_phase_below_what_its_rule_needs_goes_on(rounds: dict[str, int]) -> None:
    chosen = policy(**rounds)
    state, effects = after(opened(chosen, DEVICES), chosen, 60.0, *yes("abcd"), Tick())
    assert effects == [Extend()]
    assert missing(state, chosen) >= 1
    voiding = policy(**rounds, below_quorum="void")
    assert after(opened(voiding, DEVICES), voiding, 60.0, *yes("abcd"), Tick())[1] == [Void()]


def test_without_a_quorum_it_closes_at_its_deadline_with_what_its_rule_needs() -> None:
    chosen = policy()
    state, effects = after(opened(chosen, DEVICES), chosen, 59.0, *yes("abcde"), Tick())
    assert effects == []
    assert after(state, chosen, 60.0, Tick())[1] == [Close()]


def test_when_all_have_answered_and_too_few_were_accepted_it_is_void_after_the_grace() -> None:
    chosen = policy()
    refusals = [Answered(device, accepted=False) for device in "fgh"]
    state, effects = after(opened(chosen, DEVICES), chosen, 1.0, *yes("abcd"), *refusals)
    state, more = after(state, chosen, 2.0, Answered("e", accepted=False))
    assert (effects, more) == ([], [])
    assert after(state, chosen, 7.0, Tick())[1] == [Void()]


def test_an_open_phase_has_the_rule_that_it_was_opened_with() -> None:
    mean, chosen = policy(Plan()), policy()
    state = opened(mean, "abc")
    assert after(state, chosen, 1.0, *yes("abc"))[1] == [Close()]
    state = opened(chosen, DEVICES)
    assert after(state, mean, 1.0, *yes("abcd"), Tick())[1] == []
    assert missing(after(state, mean, 1.0, *yes("a"))[0], mean) == 7


def test_a_fraction_never_selects_fewer_than_the_rule_needs() -> None:
    for count in range(5, 9):
        for least, fraction in ((5, 0.1), (5, 0.9)):
            state = opened(policy(fraction=fraction), DEVICES[:count])
            assert len(state.expected) == max(least, math.floor(fraction * count))
            assert all(takes_part(device, TRAIN, 0, state.bar, ()) for device in state.expected)


@given(
    st.lists(
        st.tuples(st.sampled_from([*yes(DEVICES), *(Answered(d, accepted=False) for d in DEVICES), Tick()]),
                  st.floats(0, 30)),
        max_size=40,
    ),
    st.sampled_from([0, 5, 6]),
    st.sampled_from(["extend", "void"]),
    st.sampled_from([0.3, 1.0]),
)  # fmt: skip
def test_whatever_comes_no_phase_closes_below(
    events: list[tuple[Event, float]], quorum: int, below: Any, fraction: float
) -> None:
    chosen = policy(quorum=quorum, below_quorum=below, fraction=fraction)
    state, now = opened(chosen, DEVICES), 0.0
    for event, seconds in events:
        now += seconds
        state, effects = after(state, chosen, now, event)
        if Close() in effects:
            assert len(state.accepted) >= 5
        if state.stage == "closing":
            return


def test_of_trimmed_mean_and_multi_krum_too() -> None:
    for plan, least in (
        (Plan(rule="trimmed-mean", byzantine=3), 7),
        (Plan(rule="multi-krum", byzantine=1, keep=6), 7),
        (Plan(rule="median"), 1),
    ):
        assert missing(replace(opened(policy(plan), DEVICES), online=frozenset()), policy(plan)) == least
