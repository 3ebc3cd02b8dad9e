"""The plan and the present model as an operator chooses them: what is remembered, what is refused, over a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.wire import ANN, EVE

from aggregator.control import Control
from aggregator.log import Log
from aggregator.phases import Policy
from aggregator.states import State, Steered
from aggregator.steering import Steering, Verdict
from floe.errors import Refused
from floe.messages import Command, Phase
from floe.operators import read_operators
from floe.plan import Plan
from floe.settings import Rounds
from floe.store import present_model

FILE = Plan(model="linear", epochs=2)
POLICY = Policy(Rounds(count=10), FILE)
OPEN = State(Phase("main", 1, 4, "train"), stage="open", last=10)
WAITING = State(OPEN.phase, last=10)
FIRST = State(Phase("main", 1, 0, "sums"), stage="open", last=10)
FINISHED = State(Phase("main", 1, 3, "evaluate"), stage="finished", last=3)
OTHER = msgspec.structs.replace(FILE, epochs=7)
MODELS = [f"{number}" * 64 for number in range(4)]
DAMAGED = MODELS[2]


def check_model(row: Mapping[str, Any]) -> None:
    if row["sha256"] == DAMAGED:
        raise Refused("storage", "missing")


def spent(plan: Plan) -> str:
    return "privacy budget spent: epsilon 9.00 of 7.0" if plan.privacy == "device" and plan.epsilon == 7 else ""


@contextmanager
def opened(folder: Path) -> Iterator[Steering]:
    with closing(Log(folder)) as log:
        yield Steering(log.db, "main", partial(read_operators, folder / "operators.pub"), print, check_model, spent)


@pytest.fixture
def steering(tmp_path: Path) -> Iterator[Steering]:
    (tmp_path / "operators.pub").write_text(f"{ANN.name} {ANN.key}\n")
    with opened(tmp_path) as steering:
        yield steering


class Asks:
    """Commands of one operator, each with the next number."""

    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        self.seq = 0

    def __call__(self, action: Any, state: State, policy: Policy = POLICY, **fields: Any) -> Verdict:
        self.seq += 1
        return self.steering.handle(self.command(action, **fields), state, policy)

    def command(self, action: Any, **fields: Any) -> Command:
        return Command(
            federation="floe", sender=ANN.name, key=ANN.key, proof="", seq=self.seq, to="main", action=action, **fields
        )

    def plan(self) -> Plan:
        return self.steering.control().policy(POLICY).plan

    def present(self) -> str:
        row = present_model(self.steering._db, "main", 1)
        assert row is not None
        return str(row["sha256"])


@pytest.fixture
def asks(steering: Steering) -> Asks:
    return Asks(steering)


@pytest.fixture
def trained(asks: Asks) -> Asks:
    for round_, sha256 in enumerate(MODELS):
        make(asks.steering, round_, sha256)
    return asks


PRIVATE = Plan(scaling="none", privacy="device", noise_multiplier=1.0, epsilon=7.0)
MORE = msgspec.structs.replace(PRIVATE, epsilon=20.0)
REFUSED = "no round can open: privacy budget spent: epsilon 9.00 of 7.0; raise [plan] epsilon (`floe plan set`), or end"


@pytest.mark.parametrize("state", [WAITING, FINISHED])
def test_no_rounds_are_started_with_a_budget_that_is_spent(asks: Asks, state: State) -> None:
    spent = replace(POLICY, plan=PRIVATE)
    refused = asks("start", state, spent, rounds=5)
    assert (refused.done, refused.reason) == (False, "round")
    assert refused.detail.startswith(REFUSED)
    assert asks.steering.control() == Control()
    assert asks("plan", state, spent, plan=MORE).done
    assert asks("start", state, spent, rounds=5).done


def test_the_evaluation_that_is_left_is_started_also_with_a_budget_that_is_spent(asks: Asks) -> None:
    left = State(Phase("main", 1, 4, "evaluate"), last=4, held="stopped")
    assert asks("start", left, replace(POLICY, plan=PRIVATE)).done


def test_no_plan_is_set_whose_budget_is_spent(asks: Asks) -> None:
    refused = asks("plan", WAITING, replace(POLICY, plan=MORE), plan=PRIVATE)
    assert (refused.done, refused.reason) == (False, "round")
    assert refused.detail.startswith(REFUSED)


def make(steering: Steering, round_: int, sha256: str, epoch: int = 1) -> None:
    row = {"lineage": "main", "epoch": epoch, "round": round_, "sha256": sha256, "file": f"global/{round_}"}
    row |= {"bytes": 1, "devices": 2, "samples": 20, "signature": "", "created_at": ""}
    steering._db.table("models").insert(row)


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (WAITING, "from train 4 on"),
        (OPEN, "from train 5 on; train 4 keeps its own"),
        (replace(OPEN, stage="closing"), "from train 5 on; train 4 keeps its own"),
        (replace(OPEN, last=4), "from evaluate 4 on; train 4 keeps its own"),
        (FIRST, "from init 0 on; sums 0 keeps its own"),
        (FINISHED, "from train 4 on, should more rounds be started"),
    ],
)
def test_another_plan_counts_from_the_next_phase_that_opens(asks: Asks, state: State, counts: str) -> None:
    verdict = asks("plan", state, plan=OTHER)
    assert (verdict.done, verdict.detail) == (True, f"epochs = 7: counts {counts}")
    assert verdict.steered == Steered("plan", state.last)
    assert asks.plan() == OTHER
    reply = asks.steering.reply_to(asks.command("status"), verdict, state, POLICY, 0.0)
    assert reply["plan"] == OTHER


def test_a_plan_counts_over_a_restart_until_floe_toml_has_another(asks: Asks, tmp_path: Path) -> None:
    asks("plan", WAITING, plan=OTHER)
    asks("start", WAITING, rounds=3)
    asks("pause", OPEN)
    with opened(tmp_path) as restarted:
        assert restarted.control().policy(POLICY).plan == OTHER
        edited = Policy(POLICY.rounds, msgspec.structs.replace(FILE, epochs=3))
        assert restarted.control().policy(edited) == edited


def test_the_same_plan_again_changes_nothing_and_that_of_floe_toml_is_nobody_s(asks: Asks) -> None:
    assert asks("plan", WAITING, plan=FILE).steered is None
    asks("plan", WAITING, plan=OTHER)
    again = asks("plan", WAITING, plan=OTHER)
    assert (again.done, again.steered, again.detail) == (True, None, "nothing changes: this is the plan already")
    assert asks("plan", WAITING, plan=FILE).done
    assert asks.steering.control() == Control()


def test_the_same_command_again_is_answered_and_not_followed(asks: Asks) -> None:
    first = asks("plan", WAITING, plan=OTHER)
    asks.seq -= 1
    assert asks("plan", OPEN, plan=OTHER) == replace(first, steered=None)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"report": "accuracy"}, "report cannot be changed: which phases there are hangs on it; begin a new lineage"),
        ({"scaling": "none"}, "scaling cannot be changed"),
        ({"personal": ("w",)}, "personal cannot be changed: the model that is there would not fit"),
        ({"schema": "own"}, "schema cannot be changed: the model that is there would not fit"),
        ({"model": "mlp", "hidden": (3,)}, "hidden and model cannot be changed: the model that is there would not"),
    ],
)
def test_what_does_not_fit_the_models_that_are_there_is_refused(
    trained: Asks, keys: dict[str, Any], reason: str
) -> None:
    verdict = trained("plan", WAITING, plan=msgspec.structs.replace(FILE, **keys))
    assert (verdict.done, verdict.reason, verdict.steered) == (False, "round", None)
    assert verdict.detail.startswith(reason)
    assert trained.plan() == FILE


def test_before_there_is_a_model_another_may_be_asked_for_but_not_another_chain(asks: Asks) -> None:
    log = asks.steering._db.table("rounds")
    row = {"lineage": "main", "epoch": 1, "round": 0, "plan": "{}", "bar": "", "expected": "[]", "opened_at": ""}
    log.insert({**row, "task": "sums", "state": "open"})
    mlp = msgspec.structs.replace(FILE, model="mlp", seed=5)
    given = Policy(Rounds(initial="model.safetensors"), FILE)
    assert not asks("plan", FIRST, given, plan=mlp).done, "the model that is given is of the plan that is given"
    assert asks("plan", FIRST, plan=mlp).done
    accuracy = asks("plan", FIRST, plan=msgspec.structs.replace(mlp, report="accuracy"))
    assert accuracy.detail.endswith("set it in floe.toml, and start the aggregator again")
    log.insert({**row, "task": "init", "state": "open"})
    assert not asks("plan", FIRST, plan=FILE).done, "the first model is being made"
    assert asks("plan", FIRST, plan=msgspec.structs.replace(mlp, seed=6)).done


def test_where_no_weights_are_sent_devices_have_models_of_their_own(asks: Asks) -> None:
    row = {"lineage": "main", "epoch": 1, "round": 1, "plan": "{}", "bar": "", "expected": "[]", "opened_at": ""}
    asks.steering._db.table("rounds").insert({**row, "task": "train", "state": "closed"})
    policy = Policy(Rounds(), Plan(report="accuracy"))
    verdict = asks("plan", WAITING, policy, plan=Plan(report="accuracy", model="mlp"))
    assert verdict.detail.startswith("model cannot be changed")


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("plan", {}),
        ("promote", {}),
        ("start", {"plan": OTHER}),
        ("pause", {"model": MODELS[0]}),
        ("plan", {"plan": OTHER, "model": MODELS[0]}),
        ("promote", {"plan": OTHER, "model": MODELS[0]}),
    ],
)
def test_a_command_without_what_it_asks_for_or_with_more_is_malformed(
    trained: Asks, action: str, fields: dict[str, Any]
) -> None:
    verdict = trained(action, WAITING, **fields)
    assert (verdict.done, verdict.reason) == (False, "malformed")
    assert trained.steering.control() == Control()


def test_strangers_choose_nothing(trained: Asks) -> None:
    for action, fields in (("plan", {"plan": OTHER}), ("promote", {"model": MODELS[0]})):
        asked = msgspec.structs.replace(trained.command(action, **fields), sender=EVE.name, key=EVE.key, seq=1)
        assert trained.steering.handle(asked, WAITING, POLICY).reason == "unknown-key"
    assert trained.steering.control() == Control()


def test_an_earlier_model_is_the_present_one_until_a_newer_is_made(trained: Asks, tmp_path: Path) -> None:
    assert trained.present() == MODELS[3]
    verdict = trained("promote", WAITING, model=MODELS[1])
    assert (verdict.done, verdict.steered) == (True, Steered("promote", 10))
    assert verdict.detail == f"model 1 ({'1' * 12}) is the present one: the next round starts from it"
    assert trained.present() == MODELS[1]
    assert trained.steering.control() == Control(since=3, model=MODELS[1], model_after="1-3")
    with opened(tmp_path) as restarted:
        assert Asks(restarted).present() == MODELS[1]
    again = trained("promote", WAITING, model=MODELS[1])
    assert (again.done, again.steered) == (True, None)
    assert trained("promote", WAITING, model=MODELS[3]).done, "and back"
    assert trained.present() == MODELS[3]
    trained("promote", WAITING, model=MODELS[0])
    make(trained.steering, 4, MODELS[3])  # the same work on the same base gives the same model
    assert present_model(trained.steering._db, "main", 1)["round"] == 4  # type: ignore[index]


def test_a_start_keeps_the_present_model_and_the_plan(trained: Asks) -> None:
    trained("promote", FINISHED, model=MODELS[1])
    trained("plan", FINISHED, plan=OTHER)
    assert trained("start", FINISHED, rounds=2).steered == Steered("start", 5)
    assert (trained.present(), trained.plan()) == (MODELS[1], OTHER)


@pytest.mark.parametrize(
    ("state", "last"), [(FINISHED, 3), (State(Phase("main", 1, 3, "evaluate"), last=10), 3), (WAITING, 10)]
)
def test_where_the_last_round_is_over_it_stays_so(trained: Asks, state: State, last: int) -> None:
    assert trained("promote", state, model=MODELS[1]).steered == Steered("promote", last)
    assert trained.steering.control().last_round(POLICY.rounds) == last


@pytest.mark.parametrize(
    ("state", "model", "reason", "detail"),
    [
        (OPEN, MODELS[1], "round", "train 4 is open, and starts from the present model: pause or stop the rounds"),
        (replace(OPEN, stage="closing"), MODELS[1], "round", "train 4 is open"),
        (WAITING, "f" * 64, "base", "ffffffffffff is no global model of 'main' in epoch 1"),
        (replace(WAITING, phase=Phase("main", 2, 4, "train")), MODELS[1], "base", "111111111111 is no global model"),
        (WAITING, DAMAGED, "storage", "missing"),
    ],
)
def test_what_cannot_be_the_present_model_is_refused(
    trained: Asks, state: State, model: str, reason: str, detail: str
) -> None:
    verdict = trained("promote", state, model=model)
    assert (verdict.done, verdict.reason, verdict.steered) == (False, reason, None)
    assert verdict.detail.startswith(detail)
    assert trained.present() == MODELS[3]
    assert trained.steering.control() == Control()


def test_a_plan_that_does_not_go_together_with_the_rounds_is_refused_with_the_way_out(asks: Asks) -> None:
    krum = msgspec.structs.replace(FILE, rule="krum", byzantine=1)
    small = Policy(Rounds(count=10, devices=4), FILE)
    refused = asks("plan", WAITING, small, plan=krum)
    assert (refused.done, refused.reason) == (False, "round")
    assert "needs 5 updates, and [rounds] devices = 4: raise devices, or lower byzantine" in refused.detail
    refused = asks("plan", WAITING, Policy(Rounds(count=10, mode="asynchronous"), FILE), plan=krum)
    assert 'set mode = "rounds", or rule = "fedavg"' in refused.detail
    assert asks.steering.control() == Control()
    enough = Policy(Rounds(count=10, devices=5), FILE)
    assert asks("plan", WAITING, enough, plan=krum).detail == "rule = krum, byzantine = 1: counts from train 4 on"
    assert asks.steering.control().policy(enough).plan == krum
    assert asks.steering.control().policy(small) == small, "[rounds] was changed, and it does not go together any more"
