"""The chain over restarts, also those that fall between two writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers.chain import INIT, TRAIN, accept, opened, started
from msgspec.structs import replace

from aggregator import chain as chain_module
from aggregator.chain import Chain
from aggregator.control import Control
from aggregator.log import Log, Outcome
from aggregator.registry import Registry
from aggregator.states import State
from floe import weights
from floe.errors import RuleError, StoreError
from floe.identity import load_identity
from floe.keyring import Keyring
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Config, Rounds

SUMS = Phase("main", 1, 0, "sums")


def chain(folder: Path, rounds: Rounds, log: Log) -> Chain:
    config = Config(rounds=rounds, plan=Plan(), folder=folder)
    return Chain(config, log, folder / "state", load_identity(folder / "keys", "main"), Keyring("plaintext", None))


def restored(folder: Path, rounds: Rounds, control: Control = Control()) -> State:  # noqa: B008 (frozen)
    log = Log(folder / "log")
    try:
        return chain(folder, rounds, log).restore(100.0, control)
    finally:
        log.close()


def refused_by_all(log: Log, started: Chain) -> None:
    started.open(State(SUMS, stage="open", expected=frozenset({"a"})))
    ended = Outcome("t" * 32, "a", SUMS, "rejected", "device", "no such model")
    log.update(ended, None, bytes_=0, sha256=None, suite="plaintext")


def test_a_void_beginning_begins_again_in_a_new_epoch(tmp_path: Path) -> None:
    rounds = Rounds(devices=3)
    log = Log(tmp_path / "log")
    started = chain(tmp_path, rounds, log)
    refused_by_all(log, started)
    assert started.void(SUMS) == "device: no such model"
    log.close()
    again = restored(tmp_path, rounds)
    assert (again.phase, again.stage, again.needed) == (Phase("main", 2, 0, "sums"), "waiting", 3)


def test_a_crash_while_a_beginning_is_made_void_never_skips_the_scaling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds(devices=1)
    log = Log(tmp_path / "log")
    started = chain(tmp_path, rounds, log)
    refused_by_all(log, started)

    def killed(phase: Phase, **_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(log, "void_round", killed)
    for _ in range(2):  # tried again, it makes no further epoch
        with pytest.raises(sqlite3.OperationalError):
            started.void(SUMS)
    log.close()
    assert restored(tmp_path, rounds).phase == Phase("main", 2, 0, "sums")


def test_a_restart_between_two_phases_still_waits_for_the_quorum(tmp_path: Path) -> None:
    rounds = Rounds(count=3, devices=5, quorum=2)
    log = Log(tmp_path / "log")
    started = chain(tmp_path, rounds, log)
    train = Phase("main", 1, 1, "train")
    started.open(State(train, stage="open"))
    log.close_round(train, up=0, down=0, model=None)
    log.close()
    following = restored(tmp_path, rounds)
    assert (following.phase, following.needed) == (Phase("main", 1, 2, "train"), 2)


def closed_round_one(folder: Path, rounds: Rounds) -> None:
    log = Log(folder / "log")
    train = Phase("main", 1, 1, "train")
    chain(folder, rounds, log).open(State(train, stage="open", expected=frozenset({"a", "b"})))
    log.close_round(train, up=0, down=0, model=None)
    log.close()


def test_a_start_with_whoever_is_there_holds_over_a_restart_for_the_phase_that_waited(tmp_path: Path) -> None:
    rounds = Rounds(count=5, devices=5, quorum=2, pause_s=60.0)
    control = Control("", 5, 0, 5, "1-0-sums")
    first = restored(tmp_path, rounds, control)
    assert (first.phase, first.needed) == (SUMS, 1)
    closed_round_one(tmp_path, rounds)
    later = restored(tmp_path, rounds, control)
    assert (later.phase.round, later.needed, later.unheard) == (2, 2, {"a", "b"}), "it has opened since"
    started = restored(tmp_path, rounds, Control("", 5, 1, 5, "1-2-train"))
    assert (started.phase.round, started.needed, started.unheard) == (2, 1, frozenset())
    assert (later.not_before, started.not_before) == (160.0, 100.0), "nor does it wait for the pause between rounds"


def test_what_is_held_when_all_is_done_is_held_after_a_restart(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    rounds, last = Rounds(count=1), Phase("main", 1, 1, "evaluate")
    chain(tmp_path, rounds, log).open(State(last, stage="open"))
    log.close_round(last, up=0, down=0, model=None)
    log.close()
    state = restored(tmp_path, rounds, Control("paused"))
    assert (state.stage, state.held) == ("finished", "paused")


def test_a_phase_that_is_closed_is_not_made_again(tmp_path: Path) -> None:
    """What follows the close may fail and be tried again: by then the spool is gone."""
    with started(tmp_path) as (chain, _, log):
        chain.open(opened(INIT))
        accept(chain, log, INIT, "a", w=np.zeros(3, np.float32))
        assert chain.close(INIT, up=1, down=2) == {"a"}
        model = chain.model
        assert chain.close(INIT, up=9, down=9) == {"a"}
        assert chain.model == model
        assert log.db.execute("SELECT bytes_up FROM rounds").fetchone() == (1,)


def restarted(folder: Path, rounds: Rounds, plan: Plan | None = None) -> State:
    plan = plan or Plan(scaling="none")
    with closing(Log(folder / "log")) as log:
        state = folder / "state" / "aggregator-main"
        config = Config(rounds=rounds, plan=plan, folder=folder)
        keyring = Keyring("chacha20-poly1305", bytes(32))
        made = Chain(config, log, state, load_identity(state / "keys", "main"), keyring)
        return made.restore(100.0, Control())


def test_an_open_round_keeps_its_plan_and_its_time_over_a_restart(tmp_path: Path) -> None:
    now = [0.0]
    with closing(Log(tmp_path / "log", clock=lambda: now[0])) as log:
        log.federation("floe", "main", 1, "plaintext")
        log.open_round(TRAIN, None, Plan(epochs=3, report="accuracy"), "f" * 16, ["a", "b", "c"])
        now[0] = 500.0
        log.update(Outcome("t" * 32, "a", TRAIN, "rejected", "device", "no"), None, bytes_=0, sha256=None, suite="")
    state = restarted(tmp_path, Rounds(deadline_s=600, grace_s=30), Plan(epochs=9, report="accuracy"))
    assert state.plan.epochs == 3
    assert state.deadline == pytest.approx(200.0)  # 100 are left, of the three one is refused
    state = restarted(tmp_path, Rounds(deadline_s=510, grace_s=30), Plan(report="accuracy"))
    assert state.deadline == pytest.approx(130.0)  # 10 are left: the devices get the grace to come back


def test_what_a_void_round_had_accepted_is_the_next_one_s_where_late_updates_are_merged(tmp_path: Path) -> None:
    two = replace(TRAIN, round=2)
    for rounds, merged in ((Rounds(devices=2, late="merge"), 2), (Rounds(devices=2), None)):
        folder = tmp_path / rounds.late
        with started(folder, rounds=rounds) as (chain, _, log):
            chain.open(opened(INIT))
            accept(chain, log, INIT, "a", w=np.zeros(3, np.float32))
            chain.close(INIT, up=0, down=0)
            chain.open(opened(TRAIN))
            accept(chain, log, TRAIN, "a", w=np.full(3, 8, np.float32))
            chain.void(TRAIN)
            assert log.db.execute("SELECT merged FROM updates WHERE task = 'train'").fetchone() == (merged,)
        with started(folder, rounds=rounds) as (chain, _, log):
            chain.open(opened(two))
            accept(chain, log, two, "b", w=np.full(3, 4, np.float32))
            chain.close(two, up=0, down=0)
            assert chain.model is not None
            mean = weights.read(chain.model.path)["w"].tolist()
            assert mean == ([6.0] * 3 if merged else [4.0] * 3)  # of the same base: none is behind


def test_a_late_update_whose_base_is_damaged_is_given_up_and_the_round_closes(tmp_path: Path) -> None:
    two, rounds = replace(TRAIN, round=2), Rounds(devices=2, late="merge")
    with started(tmp_path, rounds=rounds) as (chain, _, log):
        chain.open(opened(INIT))
        accept(chain, log, INIT, "a", w=np.zeros(3, np.float32))
        chain.close(INIT, up=0, down=0)
        chain.open(opened(TRAIN))
        accept(chain, log, TRAIN, "c", w=np.full(3, 8, np.float32))
        chain.close(TRAIN, up=0, down=0)
        chain.open(opened(two))
        accept(chain, log, TRAIN, "b", chain.spool.path("b", TRAIN, two), w=np.full(3, 99, np.float32))
        accept(chain, log, two, "a", w=np.full(3, 4, np.float32))
        (tmp_path / "models" / "global" / "0.safetensors").write_bytes(b"damaged")
        chain.close(two, up=0, down=0)
        assert chain.model is not None
        assert weights.read(chain.model.path)["w"].tolist() == [4.0] * 3
        lost = log.db.execute("SELECT outcome, reason, merged FROM updates WHERE device = 'b'").fetchone()
    assert lost == ("rejected", "storage", None)


def test_updates_that_wait_for_a_round_stay_until_it_has_ended(tmp_path: Path) -> None:
    rounds, two = Rounds(devices=2, late="merge"), replace(TRAIN, round=2)
    with started(tmp_path, rounds=rounds) as (chain, _, log):
        chain.open(opened(INIT))
        accept(chain, log, INIT, "a", w=np.zeros(3, np.float32))
        chain.close(INIT, up=0, down=0)
        chain.open(opened(TRAIN))
        accept(chain, log, TRAIN, "a", w=np.full(3, 8, np.float32))
        chain.close(TRAIN, up=0, down=0)
        accept(chain, log, TRAIN, "b", chain.spool.path("b", TRAIN, two), w=np.full(3, 2, np.float32))
        chain.open(opened(replace(TRAIN, task="evaluate")))  # the operator wanted one round only
        assert chain.spool.path("b", TRAIN, two).exists()


def test_a_log_that_is_older_than_the_models_is_refused_and_no_model_is_made_again(tmp_path: Path) -> None:
    with started(tmp_path) as (chain, _, log):
        chain.open(opened(INIT))
        accept(chain, log, INIT, "a", w=np.zeros(3, np.float32))
        chain.close(INIT, up=0, down=0)
        chain.open(opened(TRAIN))
        accept(chain, log, TRAIN, "a", w=np.full(3, 8, np.float32))
    newer = tmp_path / "models" / "global"
    (newer / "1.safetensors").write_bytes(b"of the open round: written, but not recorded before a kill")
    with started(tmp_path) as (chain, state, _):
        assert state.phase == TRAIN
    for round_ in (2, 3):
        (newer / f"{round_}.safetensors").write_bytes(b"newer")
    with pytest.raises(StoreError, match=r"older than the models 2.safetensors to 3.safetensors"), started(tmp_path):
        pass
    assert (newer / "2.safetensors").read_bytes() == b"newer"


def in_epoch(folder: Path, log: Log, least: int) -> Chain:
    state = folder / "state" / "aggregator-main"
    config = Config(rounds=Rounds(devices=2), plan=Plan(scaling="none"), folder=folder)
    identity = load_identity(state / "keys", "main")
    return Chain(config, log, state, identity, Keyring("chacha20-poly1305", bytes(32)), least)


def begun(folder: Path) -> None:
    """Model 0 is there, and round 1 is open with an update of a."""
    with started(folder) as (chain, _, log):
        chain.open(opened(INIT))
        accept(chain, log, INIT, "a", w=np.full(3, 7, np.float32))
        chain.close(INIT, up=0, down=0)
        chain.open(opened(TRAIN))
        accept(chain, log, TRAIN, "a", w=np.full(3, 1, np.float32))


def goes_on(folder: Path, epoch: int) -> None:
    """From the newest model of before, and one round more."""
    with closing(Log(folder / "log")) as log:
        chain = in_epoch(folder, log, epoch)
        state = chain.restore(0.0, Control())
        assert (state.phase, state.stage) == (Phase("main", epoch, 1, "train"), "waiting")
        assert chain.model is not None
        assert weights.read(chain.model.path)["w"].tolist() == [7.0] * 3
        assert chain.schema is not None
        assert (folder / "state" / "aggregator-main" / "epoch").read_text() == str(epoch)
        parcel = chain.parcel()
        assert parcel is not None
        assert (parcel.core.epoch, parcel.core.round) == (epoch, 0)
        chain.open(State(state.phase, stage="open", expected=frozenset({"a"})))
        accept(chain, log, state.phase, f"c{epoch}", w=np.full(3, 9, np.float32))
        chain.close(state.phase, up=0, down=0)
        assert chain.model is not None
        assert weights.read(chain.model.path)["w"].tolist() == [9.0] * 3
        kept = log.db.execute("SELECT epoch, round FROM models ORDER BY epoch, round").fetchall()
    assert kept == [(1, 0), (epoch, 0), (epoch, 1)]


def test_a_new_epoch_of_the_roster_goes_on_from_the_newest_model(tmp_path: Path) -> None:
    begun(tmp_path)
    goes_on(tmp_path, 2)


def test_epochs_may_be_left_out_and_do_not_go_back(tmp_path: Path) -> None:
    begun(tmp_path)
    goes_on(tmp_path, 7)
    with closing(Log(tmp_path / "log")) as log:
        chain = in_epoch(tmp_path, log, 2)
        assert chain.restore(0.0, Control()).phase.epoch == 7


def test_an_epoch_before_there_is_a_model_begins_at_the_beginning(tmp_path: Path) -> None:
    with started(tmp_path) as (chain, _, _log):
        chain.open(opened(INIT))
    with closing(Log(tmp_path / "log")) as log:
        chain = in_epoch(tmp_path, log, 2)
        state = chain.restore(0.0, Control())
        assert (state.phase.epoch, state.phase.round, chain.model) == (2, 0, None)


@pytest.mark.parametrize("after", ["load", "row", "renew", "event", "write_atomically", "federation"])
def test_a_carry_over_that_was_killed_anywhere_is_done_once_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    begun(tmp_path)

    def killing(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            function(*args, **more)
            raise KeyboardInterrupt

        return call

    owner = {"load": Registry, "row": Registry, "write_atomically": chain_module}.get(after, Log)
    with closing(Log(tmp_path / "log")) as log, monkeypatch.context() as patch:
        patch.setattr(owner, after, killing(getattr(owner, after)))
        with pytest.raises(KeyboardInterrupt):
            in_epoch(tmp_path, log, 2)
    goes_on(tmp_path, 2)


@pytest.mark.parametrize("senders", ["", "abcd"])
def test_fewer_weights_than_the_rule_needs_are_a_void_round_and_no_fault_of_the_disk(
    tmp_path: Path, senders: str
) -> None:
    krum = Plan(rule="krum", byzantine=1, scaling="none")
    with started(tmp_path, plan=krum) as (chain, _, log):
        chain.open(opened(INIT))
        accept(chain, log, INIT, "a", w=np.zeros(2, np.float32))
        chain.close(INIT, up=0, down=0)
        chain.open(State(TRAIN, stage="open", expected=frozenset("abcde"), plan=krum))
        for name in senders:
            accept(chain, log, TRAIN, name, w=np.ones(2, np.float32))
        with pytest.raises(RuleError, match=f"needs 5 updates, and {len(senders)} have weights"):
            chain.close(TRAIN, up=0, down=0)
