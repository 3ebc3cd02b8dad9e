"""The state machine of the rounds, row by row of the table in its docstring."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aggregator.rounds import (
    Answered,
    Close,
    Closed,
    Extend,
    Finish,
    Next,
    Offline,
    Online,
    Open,
    Policy,
    State,
    Tick,
    Void,
    Voided,
    first_phase,
    phase_after,
    step,
)
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Rounds

POLICY = Policy(Rounds(count=2, devices=2, deadline_s=10), Plan())
TRAIN = Phase("main", 1, 1, "train")


def opened(*devices: str, policy: Policy = POLICY, phase: Phase = TRAIN) -> State:
    state = State(phase, needed=len(devices))
    for device in devices:
        state = step(state, Online(device), policy, 0.0).state
    assert state.stage == "open"
    return state


def test_a_round_waits_until_enough_devices_are_online() -> None:
    one = step(State(TRAIN, needed=2), Online("a"), POLICY, 0.0)
    assert one == Next(State(TRAIN, 2, online=frozenset({"a"})))
    two = step(one.state, Online("b"), POLICY, 5.0)
    assert two.effects == (Open(),)
    assert two.state.expected == {"a", "b"}
    assert two.state.deadline == 15.0


def test_a_device_that_left_before_the_start_does_not_count() -> None:
    state = step(step(State(TRAIN, 2), Online("a"), POLICY, 0.0).state, Offline("a"), POLICY, 0.0).state
    assert step(state, Online("b"), POLICY, 0.0).effects == ()


def test_only_the_first_phase_of_a_chain_waits_for_all_the_devices() -> None:
    sums = State(Phase("main", 1, 0, "sums"), 2, "closing", online=frozenset({"a"}))
    following = step(sums, Closed(), POLICY, 0.0, has_model=False)
    assert following.state.phase == Phase("main", 1, 0, "init")
    assert following.effects == (Open(),)


def test_later_phases_wait_for_a_quorum() -> None:
    policy = replace(POLICY, rounds=Rounds(count=2, devices=3, quorum=2))
    closing = State(TRAIN, stage="closing", online=frozenset({"a"}))
    waiting = step(closing, Closed(), policy, 0.0)
    assert (waiting.state.stage, waiting.effects) == ("waiting", ())
    assert step(waiting.state, Online("b"), policy, 0.0).effects == (Open(),)


def test_a_round_closes_when_every_expected_device_has_its_answer() -> None:
    state = step(opened("a", "b"), Answered("a", True), POLICY, 1.0)
    assert state.effects == ()
    done = step(state.state, Answered("b", False), POLICY, 2.0)
    assert done.effects == (Close(),)
    assert done.state.stage == "closing"
    assert (done.state.accepted, done.state.refused) == ({"a"}, {"b"})


def test_an_answer_to_an_accepted_device_is_not_taken_back() -> None:
    state = step(opened("a", "b"), Answered("a", True), POLICY, 1.0).state
    assert step(state, Answered("a", False), POLICY, 2.0).state.refused == frozenset()


def test_the_first_initial_model_closes_the_init_phase() -> None:
    init = opened("a", "b", phase=Phase("main", 1, 0, "init"))
    assert step(init, Answered("b", True), POLICY, 1.0).effects == (Close(),)


def test_at_the_deadline_a_quorum_closes_the_round() -> None:
    policy = replace(POLICY, rounds=Rounds(count=2, devices=3, quorum=2, deadline_s=10))
    state = opened("a", "b", "c", policy=policy)
    state = step(state, Answered("a", True), policy, 1.0).state
    state = step(state, Answered("b", True), policy, 1.0).state
    assert step(state, Tick(), policy, 9.9).effects == ()
    assert step(state, Tick(), policy, 10.0).effects == (Close(),)


def test_below_the_quorum_the_deadline_is_extended() -> None:
    state = step(opened("a", "b"), Answered("a", True), POLICY, 1.0).state
    late = step(state, Tick(), POLICY, 10.0)
    assert late.effects == (Extend("1 more updates are needed, 1 were accepted"),)
    assert late.state.deadline == 20.0


def test_without_a_number_a_dead_device_is_waited_for_until_the_deadline_only() -> None:
    state = step(opened("a", "b"), Answered("a", True), POLICY, 1.0).state
    state = step(state, Offline("b"), POLICY, 2.0).state
    assert step(state, Tick(), POLICY, 9.0).effects == ()
    assert step(state, Tick(), POLICY, 10.0).effects == (Close(),)


def test_a_stranger_s_update_does_not_stand_in_for_an_expected_device() -> None:
    state = opened("a", "b")
    for device in "cd":
        state = step(state, Answered(device, True), POLICY, 1.0).state
    assert isinstance(step(state, Tick(), POLICY, 10.0).effects[0], Extend)


def test_a_round_that_all_refused_is_void_at_its_deadline() -> None:
    state = opened("a", "b")
    for device in "ab":
        state = step(state, Answered(device, False), POLICY, 1.0).state
    assert step(state, Tick(), POLICY, 9.0).effects == ()
    assert step(state, Tick(), POLICY, 10.0).effects == (Void(),)


def test_a_void_round_of_training_is_followed_by_the_next() -> None:
    following = step(State(TRAIN, stage="closing"), Voided(), POLICY, 0.0)
    assert following.state.phase == Phase("main", 1, 2, "train")


def test_a_void_first_round_begins_again_in_a_new_epoch() -> None:
    void = State(Phase("main", 1, 0, "init"), stage="closing", online=frozenset({"a"}))
    again = step(void, Voided(), POLICY, 0.0, has_model=False)
    assert again.state.phase == Phase("main", 2, 0, "sums")
    assert again.effects == ()  # as at the first beginning, it waits for all the devices
    assert step(again.state, Online("b"), POLICY, 0.0).effects == (Open(),)


def test_a_closed_round_is_followed_by_the_next_and_the_last_by_the_end() -> None:
    closing = State(TRAIN, stage="closing", online=frozenset({"a"}))
    following = step(closing, Closed(), POLICY, 0.0)
    assert (following.state.phase, following.effects) == (Phase("main", 1, 2, "train"), (Open(),))
    last = State(Phase("main", 1, 2, "evaluate"), stage="closing")
    assert step(last, Closed(), POLICY, 0.0) == Next(replace(last, stage="finished"), (Finish(),))


def test_the_chain_of_phases() -> None:
    phase = first_phase("main", 1, POLICY, model=None, scaled=False)
    chain = []
    while phase is not None:
        chain.append((phase.task, phase.round))
        phase = phase_after(phase, POLICY, has_model=len(chain) > 1)
    assert chain == [("sums", 0), ("init", 0), ("train", 1), ("train", 2), ("evaluate", 2)]


def test_accuracy_reports_need_neither_sums_nor_a_model() -> None:
    policy = replace(POLICY, plan=Plan(report="accuracy"))
    assert first_phase("main", 1, policy, model=None, scaled=False) == TRAIN
    assert phase_after(Phase("main", 1, 2, "train"), policy, has_model=False) is None


def test_more_rounds_may_be_asked_for_after_the_end() -> None:
    longer = replace(POLICY, rounds=Rounds(count=3))
    following = phase_after(Phase("main", 1, 2, "evaluate"), longer, has_model=True)
    assert following == Phase("main", 1, 3, "train")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["on", "off", "yes", "no", "tick"])), max_size=30))
def test_whatever_comes_a_round_closes_once_and_only_with_an_accepted_update(events: list[tuple[str, str]]) -> None:
    state, closes, now = State(TRAIN, 2), 0, 0.0
    for device, what in events:
        now += 3.0
        event = {
            "on": Online(device),
            "off": Offline(device),
            "yes": Answered(device, True),
            "no": Answered(device, False),
            "tick": Tick(),
        }[what]
        following = step(state, event, POLICY, now)
        state = following.state
        closes += following.effects.count(Close())
        assert not state.accepted & state.refused
        assert following.effects.count(Close()) == 0 or state.accepted
    assert closes <= 1
