"""The state machine of the rounds: every row of its table, and what must hold whatever comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import msgspec
import pytest
from helpers.protocol import tables_under
from hypothesis import assume, given
from hypothesis import strategies as st

from aggregator.phases import Policy, Progress, first_phase, phase_after, reason_to_stop
from aggregator.rounds import TABLE, next_due, staleness_of, step
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
    State,
    Steered,
    Tick,
    Void,
    Voided,
    Wait,
)
from floe.messages import Phase, Task
from floe.plan import Plan
from floe.settings import Rounds

TRAIN = Phase("main", 1, 1, "train")
SUMS, INIT = Phase("main", 1, 0, "sums"), Phase("main", 1, 0, "init")
GRACE, DEADLINE = 5.0, 60.0


def policy(**rounds: Any) -> Policy:
    return Policy(Rounds(**({"count": 2, "devices": 2, "grace_s": GRACE, "deadline_s": DEADLINE} | rounds)), Plan())


def yes(device: str, *, late: bool = False) -> Answered:
    return Answered(device, accepted=True, late=late)


def no(device: str) -> Answered:
    return Answered(device, accepted=False)


class Run:
    """A federation of devices a, b, c, all online, and its effects so far, without those of the beginning."""

    def __init__(self, phase: Phase = TRAIN, devices: str = "abc", **rounds: Any) -> None:
        self.policy, self.now, self.effects = policy(**rounds), 0.0, list[Effect]()
        self.state = State(phase, needed=len(devices), last=self.policy.rounds.count)
        for device in devices:
            self.after(Online(device))
        assert self.effects == [Open()]
        self.effects.clear()

    def after(self, *events: Event | float) -> list[Effect]:
        """The effects after these events; a number lets so many seconds pass."""
        for event in events:
            if not isinstance(event, Event):
                self.now += event
            following = step(self.state, event if isinstance(event, Event) else Tick(), self.policy, self.now)
            self.state = following.state
            self.effects += following.effects
        return self.effects


# One story for each row of the table: its effects must end with that row's.
def opens() -> Run:
    return Run()


def stopped_with_quorum() -> Run:
    run = Run(quorum=1)
    run.after(yes("a"), Steered("stop", 2))
    return run


def stopped_below() -> Run:
    run = Run(quorum=2)
    run.after(yes("a"), Steered("stop", 2))
    return run


def first_initial() -> Run:
    run = Run(INIT)
    run.after(yes("b"))
    return run


def asynchronous() -> Run:
    run = Run(mode="asynchronous")
    run.after(yes("c", late=True))
    return run


def all_in() -> Run:
    run = Run()
    run.after(yes("a"), yes("b"), no("c"))
    return run


def grace() -> Run:
    run = Run(quorum=2)
    assert run.after(yes("a"), 3.0, yes("b"), GRACE - 0.1) == []
    run.after(0.1)
    return run


def hopeless() -> Run:
    run = Run(quorum=2)
    assert run.after(no("a"), yes("b"), no("c"), GRACE - 0.1) == []
    run.after(0.1)
    return run


def patience_over() -> Run:
    run = Run()
    assert run.after(yes("a"), DEADLINE - 0.1) == []
    run.after(0.1)
    return run


def void_below() -> Run:
    run = Run(quorum=2, below_quorum="void")
    assert run.after(yes("a"), DEADLINE - 0.1) == []
    run.after(0.1)
    return run


def extended() -> Run:
    run = Run(quorum=2)
    assert run.after(yes("a"), DEADLINE - 0.1) == []
    run.after(0.1)
    assert run.state.deadline == 2 * DEADLINE
    return run


def followed() -> Run:
    run = Run(pause_s=1.0)
    run.after(yes("a"), yes("b"), yes("c"), Closed())
    assert run.state.phase == Phase("main", 1, 2, "train")
    return run


def ended() -> Run:
    run = Run(replace_phase(TRAIN, task="evaluate"), count=1)
    run.after(yes("a"), yes("b"), yes("c"), Closed())
    return run


def asked_for_more() -> Run:
    run = Run(replace_phase(TRAIN, task="evaluate"), count=1, pause_s=1.0)
    run.after(yes("a"), yes("b"), yes("c"), Closed())
    run.state = replace(run.state, online=frozenset())
    run.after(Steered("start", 3))
    assert (run.state.phase.round, run.state.last) == (2, 3)
    return run


def replace_phase(phase: Phase, **changes: Any) -> Phase:
    return msgspec.structs.replace(phase, **changes)


STORIES: list[Callable[[], Run]] = [
    opens, stopped_with_quorum, stopped_below, first_initial, asynchronous, all_in, grace, hopeless, patience_over,
    void_below, extended, followed, ended, asked_for_more,
]  # fmt: skip


@pytest.mark.parametrize(("row", "story"), list(zip(TABLE, STORIES, strict=True)), ids=lambda v: getattr(v, "when", ""))
def test_every_row_of_the_table(row: Any, story: Callable[[], Run]) -> None:
    run = story()
    assert run.state.stage == row.to
    assert [*run.effects, Open()][0 if story is opens else -2] == row.effect


def test_the_table_in_the_document_is_the_code_s() -> None:
    written = tables_under("### 5.3 When a phase opens and closes")[0]
    assert written == [[row.stage, row.when, row.to, type(row.effect).__name__] for row in TABLE]


def test_an_event_that_says_nothing_new_copies_no_set() -> None:
    policy = Policy(Rounds(devices=2), Plan())
    state = State(Phase("main", 1, 1, "train"), needed=2, last=1)
    for device in ("a", "b"):
        state = step(state, Online(device), policy, 0.0).state
    assert state.stage == "open"
    assert step(state, Online("a"), policy, 1.0).state.online is state.online


def test_a_device_that_left_before_the_start_does_not_count() -> None:
    state = State(TRAIN, 2)
    for event in (Online("a"), Offline("a"), Online("b")):
        state = step(state, event, policy(), 0.0).state
    assert state.stage == "waiting"


def test_only_the_first_phase_of_a_chain_waits_for_all_the_devices() -> None:
    run = Run(SUMS)
    run.after(Offline("b"), Offline("c"), yes("a"), GRACE, Closed(has_model=False))
    assert run.state.phase == INIT
    assert run.effects[-1] == Open()


def test_later_phases_wait_for_a_quorum() -> None:
    run = Run(quorum=2)
    run.after(yes("a"), yes("b"), Offline("b"), Offline("c"), GRACE, Closed())
    assert run.effects == [Close(), Wait()]
    assert run.after(Online("b"))[-1] == Open()


def test_after_a_restart_those_who_were_there_are_waited_for_as_long_as_the_grace() -> None:
    restored = State(TRAIN, 1, unheard=frozenset("ab"), not_before=100.0)
    one = step(restored, Online("a"), policy(), 100.0).state
    assert one.stage == "waiting"
    assert next_due(one, policy()) == 105.0
    assert step(one, Online("b"), policy(), 101.0).state.expected == {"a", "b"}
    assert step(one, Offline("b"), policy(), 101.0).state.expected == {"a"}
    assert step(one, Tick(), policy(), 105.0).state.expected == {"a"}


def test_nothing_opens_before_the_pause_is_over() -> None:
    run = Run(pause_s=7.0)
    assert run.after(yes("a"), yes("b"), yes("c"), Closed()) == [Close(), Wait()]
    assert next_due(run.state, run.policy) == 7.0
    assert run.after(6.9) == [Close(), Wait()]
    assert run.after(0.1) == [Close(), Wait(), Open()]


def test_an_answer_to_an_accepted_device_is_not_taken_back() -> None:
    run = Run()
    run.after(yes("a"), no("a"))
    assert (run.state.accepted, run.state.refused) == ({"a"}, frozenset())


def test_without_a_number_a_dead_device_is_waited_for_as_long_as_the_grace() -> None:
    run = Run()
    assert run.after(yes("a"), yes("b"), 1.0, Offline("c"), GRACE - 1) == []
    assert run.after(1.0) == [Close()]


def test_a_device_that_comes_back_within_the_grace_is_waited_for_again() -> None:
    run = Run()
    assert run.after(yes("a"), yes("b"), Offline("c"), GRACE - 1, Online("c"), GRACE + 1) == []
    assert run.after(yes("c")) == [Close()]


def test_the_grace_never_outlasts_the_deadline() -> None:
    run = Run(quorum=1, grace_s=1000.0)
    assert run.after(yes("a"), DEADLINE - 0.1) == []
    assert run.after(0.1) == [Close()]


def test_a_stranger_s_update_does_not_stand_in_for_an_expected_device() -> None:
    run = Run()
    for device in "xyz":
        run.after(yes(device))
    assert run.after(DEADLINE - 0.1) == []


def test_where_the_selected_are_gone_others_are_selected_at_the_deadline() -> None:
    run = Run(devices="abcdefghij", fraction=0.1)
    [chosen] = run.state.expected
    bar = run.state.bar
    assert run.after(Offline(chosen), DEADLINE) == [Extend()]
    assert run.state.bar > bar
    [other] = run.state.expected - {chosen}
    assert run.after(yes(other)) == [Extend()]
    assert run.after(GRACE) == [Extend(), Close()]


def test_a_late_update_is_no_part_of_the_quorum() -> None:
    run = Run(late="merge")
    assert run.after(yes("a", late=True), yes("b", late=True), yes("c", late=True), GRACE) == []
    assert run.state.merged == 3


def test_asynchronous_operation_waits_in_the_other_phases() -> None:
    run = Run(SUMS, mode="asynchronous")
    assert run.after(yes("a"), yes("b")) == []
    assert run.after(yes("c")) == [Close()]


def test_asynchronously_one_device_is_enough_to_train() -> None:
    run = Run(mode="asynchronous", quorum=3)
    run.after(yes("a"), Offline("b"), Offline("c"), Closed())
    assert run.effects == [Close(), Wait(), Open()]


def test_a_late_update_that_came_between_two_phases_closes_the_next_at_once() -> None:
    run = Run(mode="asynchronous", pause_s=5.0)
    run.after(yes("a"), Closed(), yes("b", late=True))
    assert run.after(5.0)[-2:] == [Open(), Close()]


def test_a_void_round_of_training_is_followed_by_the_next() -> None:
    run = hopeless()
    run.after(Voided())
    assert run.state.phase == Phase("main", 1, 2, "train")


def test_a_void_round_after_which_no_more_are_needed_is_the_last() -> None:
    run = hopeless()
    run.after(Voided("the budget is spent"))
    assert run.state.phase == Phase("main", 1, 1, "evaluate")


def test_a_void_first_round_begins_again_in_a_new_epoch() -> None:
    run = Run(INIT, devices="ab")
    run.after(no("a"), no("b"), GRACE, Offline("b"), Voided())
    assert run.state.phase == Phase("main", 2, 0, "sums")
    assert run.state.stage == "waiting"  # as at the first beginning, it waits for all the devices
    assert run.after(Online("b"))[-1] == Open()


def test_paused_rounds_end_what_is_open_and_open_no_other() -> None:
    run = Run()
    run.after(Steered("pause", 2), yes("a"), yes("b"), yes("c"), Closed(), 1000.0)
    assert run.effects == [Close(), Wait()]
    assert run.after(Steered("resume", 2))[-1] == Open()


def test_stopped_rounds_go_on_with_whoever_is_there() -> None:
    run = Run(quorum=3)
    run.after(Steered("stop", 2), Voided(), Offline("a"), Offline("b"), 1000.0)
    assert run.effects == [Void(), Wait()]
    run.after(Steered("start", 2))
    assert run.state.expected == {"c"}


def test_after_the_end_a_start_opens_with_whoever_is_there_and_at_once() -> None:
    run = Run(replace_phase(TRAIN, task="evaluate"), count=1, quorum=3, pause_s=9.0)
    run.after(yes("a"), yes("b"), yes("c"), Closed(), Offline("a"), Offline("b"))
    assert run.after(Steered("start", 2))[-1] == Open()
    assert run.state.expected == {"c"}


def test_enough_is_followed_by_the_evaluation_and_the_end() -> None:
    run = Run(count=9)
    run.after(yes("a"), yes("b"), yes("c"), Closed(enough="accuracy has reached the target"))
    assert run.state.phase == Phase("main", 1, 1, "evaluate")
    run.after(yes("a"), yes("b"), yes("c"), Closed(enough="accuracy has reached the target"))
    assert run.effects[-1] == Finish()
    assert run.after(Tick(), 1000.0)[-1] == Finish()


@pytest.mark.parametrize(
    ("progress", "rounds", "reason"),
    [
        (Progress(), {"target": 0.1, "patience": 1}, ""),
        (Progress(0.94), {"target": 0.95}, ""),
        (Progress(0.95), {"target": 0.95}, "accuracy 0.95 has reached the target 0.95"),
        (Progress(0.2), {"metric": "loss", "target": 0.3}, "loss 0.2 has reached the target 0.3"),
        (Progress(0.4), {"metric": "loss", "target": 0.3}, ""),
        (Progress(0.0), {"metric": "loss"}, ""),
        (Progress(0.9, 2), {"patience": 3}, ""),
        (Progress(0.9, 3), {"patience": 3, "metric": "roc_auc"}, "roc_auc got no better in 3 rounds"),
    ],
)
def test_reasons_to_stop(progress: Progress, rounds: dict[str, Any], reason: str) -> None:
    assert reason_to_stop(progress, Rounds(**rounds)) == reason


@pytest.mark.parametrize(
    ("phase", "stage", "behind"),
    [
        (Phase("main", 1, 8, "train"), "open", 0),
        (Phase("main", 1, 8, "train"), "closing", None),
        (Phase("main", 1, 7, "train"), "open", 1),
        (Phase("main", 1, 7, "train"), "waiting", 1),
        (Phase("main", 1, 7, "train"), "finished", None),
        (Phase("main", 1, 5, "train"), "open", 3),
        (Phase("main", 1, 4, "train"), "open", None),
        (Phase("main", 1, 9, "train"), "open", None),
        (Phase("main", 2, 7, "train"), "open", None),
        (Phase("other", 1, 7, "train"), "open", None),
        (Phase("main", 1, 0, "init"), "open", None),
        (Phase("main", 1, 7, "evaluate"), "open", None),
    ],
)
def test_what_is_still_taken(phase: Phase, stage: Any, behind: int | None) -> None:
    state = State(Phase("main", 1, 8, "train"), stage=stage)
    assert staleness_of(phase, state, policy(late="merge", max_staleness=3)) == behind
    dropping = staleness_of(phase, state, policy(max_staleness=3))
    assert dropping == (behind if behind == 0 else None)


def test_the_chain_of_phases() -> None:
    phase: Phase | None = first_phase("main", 1, policy(), model=None, scaled=False)
    chain = []
    while phase is not None:
        chain.append((phase.task, phase.round))
        phase = phase_after(phase, policy(), last=2, has_model=len(chain) > 1)
    assert chain == [("sums", 0), ("init", 0), ("train", 1), ("train", 2), ("evaluate", 2)]


def test_accuracy_reports_need_neither_sums_nor_a_model() -> None:
    reports = replace(policy(), plan=Plan(report="accuracy"))
    assert first_phase("main", 1, reports, model=None, scaled=False) == TRAIN
    assert phase_after(Phase("main", 1, 2, "train"), reports, last=2, has_model=False) is None


@pytest.mark.parametrize("task", ["threshold", "evaluate"])
def test_more_rounds_may_be_asked_for_after_the_end(task: Task) -> None:
    following = phase_after(Phase("main", 1, 2, task), policy(), last=3, has_model=True)
    assert following == Phase("main", 1, 3, "train")


def test_a_federated_threshold_is_agreed_between_the_last_training_and_the_evaluation() -> None:
    agrees, train = replace(policy(), plan=Plan(threshold="federated")), Phase("main", 1, 2, "train")
    agreeing = phase_after(train, agrees, last=2, has_model=True)
    assert agreeing == Phase("main", 1, 2, "threshold")
    assert phase_after(agreeing, agrees, last=2, has_model=True) == Phase("main", 1, 2, "evaluate")
    assert phase_after(train, agrees, last=3, has_model=True) == Phase("main", 1, 3, "train")
    assert phase_after(agreeing, agrees, last=9, has_model=True, enough="enough") == Phase("main", 1, 2, "evaluate")
    assert phase_after(Phase("main", 1, 2, "evaluate"), agrees, last=2, has_model=True) is None
    assert phase_after(train, replace(agrees, plan=Plan(threshold="federated", report="accuracy")), last=2,
                       has_model=False) is None  # fmt: skip


def test_scaling_of_ones_own_needs_no_sums() -> None:
    for scaling, task in (("standard", "sums"), ("local", "init"), ("none", "init")):
        plan = Plan(scaling=scaling)  # type: ignore[arg-type]
        assert first_phase("main", 1, replace(policy(), plan=plan), model=None, scaled=False).task == task


EVENTS: list[Event] = [
    *(kind(device) for kind in (Online, Offline) for device in "abc"),
    *(Answered(device, accepted=a, late=late) for device in "abc" for a in (True, False) for late in (True, False)),
    *(Steered(action, 5) for action in ("start", "stop", "pause", "resume", "plan", "promote")),
    *(Closed(), Closed(enough="it is"), Voided(), Tick()),
]


@given(
    st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 70)), max_size=40),
    st.sampled_from(["rounds", "asynchronous"]),
    st.integers(0, 3),
    st.sampled_from(["extend", "void"]),
)
def test_whatever_comes_phases_only_go_on_and_close_once(
    events: list[tuple[Event, float]], mode: Any, quorum: int, below: Any
) -> None:
    chosen = policy(mode=mode, quorum=quorum, below_quorum=below, late="merge", count=5)
    state, now = State(SUMS, 2, last=5), 0.0
    for event, seconds in events:
        before, now = state, now + seconds
        following = step(state, event, chosen, now)
        state = following.state
        ends = [e for e in following.effects if isinstance(e, Close | Void)]
        assert len(ends) <= 1
        if Close() in ends:
            assert state.accepted or state.merged
            assert (
                quorum == 0
                or len(state.accepted) >= min(quorum, len(state.expected))
                or (state.phase.task == "init" or mode == "asynchronous")
            )
        assert not state.accepted & state.refused
        order, was = (
            (one.phase.epoch, one.phase.round, get_args(Task).index(one.phase.task)) for one in (state, before)
        )
        assert order >= was
        assert state.phase == before.phase or before.stage in ("closing", "finished")
        if state.stage == "open":
            due = next_due(state, chosen)
            assert due is not None
            assert due > now, "what is due now has been done"


@given(
    st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 70)), max_size=30),
    st.sampled_from(["rounds", "asynchronous"]),
    st.integers(0, 3),
    st.sampled_from(["extend", "void"]),
    st.sampled_from([0.3, 1.0]),
    st.sets(st.sampled_from("abc"), max_size=2),
)
def test_no_round_hangs_while_a_quorum_of_devices_answers(
    events: list[tuple[Event, float]], mode: Any, quorum: int, below: Any, fraction: float, dead: set[str]
) -> None:
    """From wherever it stands: as many deadlines as it has devices, and one more, end the phase."""
    quorum = min(quorum, 3 - len(dead))
    chosen = policy(mode=mode, quorum=quorum, below_quorum=below, fraction=fraction, late="merge", count=5)
    state, now = State(SUMS, 1, last=5), 0.0
    for event, seconds in events:
        now += seconds
        state = step(state, event, chosen, now).state
    for device in "abc":
        state = step(state, (Offline if device in dead else Online)(device), chosen, now).state
    state = step(state, Steered("start", 5), chosen, now).state
    able = state.accepted | ({*"abc"} - dead - state.refused)
    assume(below == "void" or len(able) >= max(quorum, 1))  # to extend is to wait for those that are dead
    before = state
    for _ in range(5):
        for device in sorted({*"abc"} - dead):
            if device in state.expected and device not in state.accepted | state.refused:
                state = step(state, yes(device), chosen, now).state
        if state.stage in ("closing", "finished") or state.phase != before.phase:
            return
        now += DEADLINE
        state = step(state, Tick(), chosen, now).state
    raise AssertionError(f"it hangs: {state}")
