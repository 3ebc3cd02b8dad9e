"""The chain over restarts, also those that fall between two writes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers.chain import INIT, accept, opened, started

from aggregator.chain import Chain
from aggregator.log import Log, Outcome
from aggregator.phases import Policy
from aggregator.states import State
from aggregator.steering import Control
from floe.identity import load_identity
from floe.keyring import Keyring
from floe.messages import Phase
from floe.plan import Plan
from floe.settings import Config, Rounds

SUMS = Phase("main", 1, 0, "sums")


def chain(folder: Path, rounds: Rounds, log: Log) -> Chain:
    config = Config(rounds=rounds, plan=Plan(), folder=folder)
    return Chain(config, log, folder / "state", load_identity(folder / "keys", "main"), Keyring("plaintext", None))


def restored(folder: Path, rounds: Rounds) -> State:
    log = Log(folder / "log")
    try:
        return chain(folder, rounds, log).restore(Policy(rounds, Plan()), 100.0, Control())
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

    def killed(phase: Phase) -> None:
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
