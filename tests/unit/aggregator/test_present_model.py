"""The chain with an earlier model as the present one: over restarts, closes and epochs, with late updates; shares."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.chain import INIT, ROUNDS, TRAIN, accept, opened, started
from msgspec.structs import replace

from aggregator.chain import Chain
from aggregator.check import check
from aggregator.control import Control
from aggregator.log import Log
from aggregator.phases import Policy, Progress
from aggregator.progress import read_progress
from aggregator.states import State
from floe import weights
from floe.errors import Refused
from floe.findings import Findings
from floe.identity import load_identity
from floe.keyring import Keyring
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Config, Rounds
from floe.store import present_model

LATE = Rounds(devices=2, late="merge")


def trained(folder: Path, rounds: Rounds = ROUNDS, last: int = 3) -> None:
    """Models 0 to 3, of 0, 10, 20 and 30."""
    with started(folder, rounds=rounds) as (chain, _, log):
        chain.open(opened(INIT))
        accept(chain, log, INIT, "a", w=np.zeros(3, np.float32))
        chain.close(INIT, up=0, down=0)
        for round_ in range(1, last + 1):
            train(chain, log, round_, 10 * round_)


def train(chain: Chain, log: Log, round_: int, value: float) -> None:
    phase = replace(TRAIN, round=round_)
    chain.open(opened(phase))
    accept(chain, log, phase, "a", w=np.full(3, value, np.float32))
    chain.close(phase, up=0, down=0)


def promote(log: Log, round_: int, after: str = "1-3") -> str:
    """What `steering` writes."""
    (sha256,) = log.db.execute("SELECT sha256 FROM models WHERE round = ? AND epoch = 1", [round_]).fetchone()
    row = {"lineage": "main", "held": "", "last": 0, "since": 3, "count": 0, "opens": "", "plan": "", "plan_over": ""}
    log.db.table("control").upsert({**row, "model": sha256, "model_after": after}, pk="lineage")
    return str(sha256)


def value_of(chain: Chain) -> float:
    assert chain.model is not None
    return float(weights.read(chain.model.path)["w"][0])


def test_the_chosen_model_is_the_base_at_once_and_over_a_restart_until_a_newer_is_made(tmp_path: Path) -> None:
    trained(tmp_path)
    with started(tmp_path) as (chain, _, log):
        sha256 = promote(log, 1)
        assert value_of(chain) == 30
        chain.take_present()
        base = chain.base()
        assert base is not None
        assert (value_of(chain), base.sha256) == (10, sha256)
    with started(tmp_path) as (chain, state, log):
        assert (state.phase, state.stage, value_of(chain)) == (replace(TRAIN, round=4), "waiting", 10)
        chain.open(opened(state.phase))
    with started(tmp_path) as (chain, state, log):
        assert (state.stage, value_of(chain)) == ("open", 10)
        assert chain.expectation(state.phase).base == sha256
        accept(chain, log, state.phase, "a", w=np.full(3, 40, np.float32))
        chain.close(state.phase, up=0, down=0)
        assert value_of(chain) == 40
        bases = log.db.execute("SELECT base_sha256 FROM rounds WHERE round = 4").fetchall()
        assert bases == [(sha256,)]
    with started(tmp_path) as (chain, state, _):
        assert (state.phase.round, value_of(chain)) == (5, 40)


def test_a_void_round_leaves_the_chosen_model_the_present_one(tmp_path: Path) -> None:
    trained(tmp_path)
    with started(tmp_path) as (chain, state, log):
        promote(log, 1)
        chain.take_present()
        chain.open(opened(state.phase))
        chain.void(state.phase)
    with started(tmp_path) as (chain, state, _):
        assert (state.phase.round, value_of(chain)) == (5, 10)


def test_what_was_published_of_a_model_is_published_again(tmp_path: Path) -> None:
    trained(tmp_path)
    with started(tmp_path, rounds=LATE) as (chain, _, log):
        promote(log, 1)
        chain.take_present()
        first = chain.parcel()
        promote(log, 3)
        chain.take_present()
        chain.parcel()
        promote(log, 1)
        chain.take_present()
        assert chain.parcel() == first


def test_a_new_epoch_begins_with_the_present_model_and_counts_its_rounds_on(tmp_path: Path) -> None:
    trained(tmp_path)
    with closing(Log(tmp_path / "log")) as log:
        promote(log, 1)
        state = tmp_path / "state" / "aggregator-main"
        config = Config(rounds=Rounds(devices=2), plan=Plan(scaling="none"), folder=tmp_path)
        keyring = Keyring("chacha20-poly1305", bytes(32))
        chain = Chain(config, log, state, load_identity(state / "keys", "main"), keyring, 2)
        assert (chain.restore(0.0, Control()).phase, value_of(chain)) == (Phase("main", 2, 4, "train"), 10)
        train_in_epoch(chain, log)
        assert value_of(chain) == 50
    assert damage(tmp_path) == []


def train_in_epoch(chain: Chain, log: Log) -> None:
    phase = Phase("main", 2, 4, "train")
    chain.open(opened(phase))
    accept(chain, log, phase, "b", w=np.full(3, 50, np.float32))
    chain.close(phase, up=0, down=0)


def damage(folder: Path) -> list[str]:
    found = Findings()
    check(Config(rounds=Rounds(devices=2), plan=Plan(scaling="none"), folder=folder), "main", found)
    return [str(one) for one in found.all if one.level == "damaged"]


def test_a_log_with_a_chosen_model_is_not_damaged(tmp_path: Path) -> None:
    trained(tmp_path)
    with started(tmp_path) as (chain, _, log):
        promote(log, 1)
        chain.take_present()
        train(chain, log, 4, 40)
        promote(log, 2, "1-4")
    assert damage(tmp_path) == []


def test_a_file_that_is_not_as_the_log_has_it_cannot_be_chosen(tmp_path: Path) -> None:
    trained(tmp_path)
    with started(tmp_path) as (chain, _, log):
        row = present_model(log.db, "main", 1)
        assert row is not None
        chain.check_model(row)
        with pytest.raises(Refused, match=r"another key than this aggregator's has signed it"):
            chain.check_model(row | {"round": 2})
        (tmp_path / "models" / row["file"]).write_bytes(b"damaged")
        with pytest.raises(Refused, match=r"its SHA-256 is .* restore it from a backup, or choose another"):
            chain.check_model(row)


def test_an_update_of_another_base_is_late_also_where_no_model_was_made_between(tmp_path: Path) -> None:
    """Round 4 is void, its update waits for round 5, and that starts from model 1 instead of 3."""
    trained(tmp_path, LATE)
    four, five = replace(TRAIN, round=4), replace(TRAIN, round=5)
    with started(tmp_path, rounds=LATE) as (chain, _, log):
        chain.open(opened(four))
        accept(chain, log, four, "a", w=np.full(3, 38, np.float32))
        chain.void(four)
        promote(log, 1)
        chain.take_present()
        chain.open(opened(five))
        chain.close(five, up=0, down=0)
        assert value_of(chain) == pytest.approx(10 + (38 - 30) * 2**-0.5)


def test_the_stop_criteria_look_at_models_that_were_made_after_the_choice(tmp_path: Path) -> None:
    trained(tmp_path)
    with started(tmp_path) as (chain, _, log):
        for round_, accuracy in enumerate((0.1, 0.9, 0.8, 0.7)):
            log.db.execute("UPDATE models SET accuracy = ? WHERE round = ?", [accuracy, round_])
        closed, policy = replace(TRAIN, round=4), Policy(Rounds(), Plan())
        assert read_progress(log.db, closed, policy, 0) == Progress(0.7, 2)
        assert read_progress(log.db, closed, policy, 3) == Progress()
        promote(log, 1)
        chain.take_present()
        train(chain, log, 4, 40)
        log.db.execute("UPDATE models SET accuracy = 0.5 WHERE round = 4")
        assert read_progress(log.db, replace(TRAIN, round=5), policy, 3) == Progress(0.5, 0)


def weights_of(log: Log, round_: int) -> dict[str, Any]:
    sql = "SELECT device || round, weight FROM updates WHERE merged = ? AND task = 'train' ORDER BY id"
    return dict(log.db.execute(sql, [round_]).fetchall())


def test_the_share_of_each_update_in_the_mean_is_recorded_with_the_close(tmp_path: Path) -> None:
    trained(tmp_path, LATE, last=0)
    two = replace(TRAIN, round=2)
    with started(tmp_path, rounds=LATE) as (chain, _, log):
        chain.open(opened(TRAIN))
        for device in "ab":
            accept(chain, log, TRAIN, device, w=np.full(3, 1, np.float32))
        assert weights_of(log, 1) == {"a1": None, "b1": None}
        chain.close(TRAIN, up=0, down=0)
        assert weights_of(log, 1) == {"a1": 0.5, "b1": 0.5}
        chain.open(opened(two))
        late = chain.spool.path("c", TRAIN, two)
        accept(chain, log, TRAIN, "c", late=late, w=np.full(3, 1, np.float32))
        accept(chain, log, two, "a", w=np.full(3, 1, np.float32))
        chain.close(two, up=0, down=0)
        found = weights_of(log, 2)
    assert found == pytest.approx({"c1": 2**-0.5 / (1 + 2**-0.5), "a2": 1 / (1 + 2**-0.5)})
    assert sum(found.values()) == pytest.approx(1)


def test_asynchronously_the_share_is_that_in_the_new_model(tmp_path: Path) -> None:
    rounds = Rounds(devices=2, mode="asynchronous", mixing=0.6)
    trained(tmp_path, rounds, last=0)
    with started(tmp_path, rounds=rounds) as (chain, _, log):
        chain.open(opened(TRAIN))
        for device in "ab":
            accept(chain, log, TRAIN, device, w=np.full(3, 1, np.float32))
        chain.close(TRAIN, up=0, down=0)
        assert weights_of(log, 1) == pytest.approx({"a1": 0.6 * 0.4, "b1": 0.6})
        assert value_of(chain) == pytest.approx(0.6 * 0.4 + 0.6)


def test_where_no_weights_are_sent_there_is_no_share(tmp_path: Path) -> None:
    trained(tmp_path, last=0)
    with started(tmp_path) as (chain, _, log):
        assert weights_of(log, 0) == {}
        (of_init,) = log.db.execute("SELECT weight FROM updates WHERE task = 'init'").fetchone()
        assert of_init is None
        chain.open(State(TRAIN, stage="open", expected=frozenset({"a"})))
        chain.close(TRAIN, up=0, down=0)
        assert value_of(chain) == 0, "the base again"
