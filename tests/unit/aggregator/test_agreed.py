"""The threshold that an aggregator makes of its devices' histograms: from the log, over restarts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers.chain import INIT, TRAIN, accept, opened, started

from aggregator.chain import Chain
from aggregator.log import Log, Outcome
from floe.messages import Phase
from floe.report import Report
from floe.threshold import histogram, merged, quantile

AGREE = Phase("main", 1, 1, "threshold")
ERRORS = {"a": np.array([0.1, 0.2, 0.3]), "b": np.array([5.0]), "c": np.array([90.0])}
QUANTILE = 0.95  # the plan's, by default


def trained(chain: Chain, log: Log) -> None:
    chain.open(opened(INIT))
    accept(chain, log, INIT, "a", w=np.zeros(2, np.float32))
    chain.close(INIT, up=0, down=0)
    chain.open(opened(TRAIN))
    accept(chain, log, TRAIN, "a", w=np.ones(2, np.float32))
    chain.close(TRAIN, up=0, down=0)


def told(log: Log, device: str, outcome: str = "accepted") -> None:
    ended = Outcome(f"histogram of {device}".ljust(32, "0"), device, AGREE, outcome, "", "")
    counts = histogram(ERRORS[device])
    log.update(ended, Report(samples=3, histogram=counts), bytes_=0, sha256=None, suite="plaintext")


def expected(*devices: str) -> float:
    return quantile(merged([histogram(ERRORS[device]) for device in devices]), QUANTILE)


def test_the_accepted_histograms_come_to_one_threshold_and_it_is_there_after_a_restart(tmp_path: Path) -> None:
    with started(tmp_path) as (chain, _, log):
        trained(chain, log)
        chain.open(opened(AGREE))
        for device, outcome in (("b", "accepted"), ("c", "rejected"), ("a", "accepted")):
            told(log, device, outcome)
        assert chain.threshold is None
        chain.close(AGREE, up=0, down=0)
        assert chain.threshold == expected("a", "b")
    with started(tmp_path) as (chain, _, log):
        assert chain.threshold == expected("a", "b")
        row = log.round(AGREE)
        assert row is not None
        assert row["threshold"] == chain.threshold


def test_the_threshold_of_a_model_is_none_of_the_next_one(tmp_path: Path) -> None:
    with started(tmp_path) as (chain, _, log):
        trained(chain, log)
        chain.open(opened(AGREE))
        told(log, "a")
        chain.close(AGREE, up=0, down=0)
        following = Phase("main", 1, 2, "train")
        chain.open(opened(following))
        accept(chain, log, following, "a", w=np.full(2, 3, np.float32))
        chain.close(following, up=0, down=0)
        assert chain.threshold is None
    with started(tmp_path) as (chain, _, _):
        assert chain.threshold is None


def test_what_the_disk_refuses_as_the_phase_closes_is_agreed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path) as (chain, _, log):
        trained(chain, log)
        chain.open(opened(AGREE))
        told(log, "a")
        with monkeypatch.context() as patch:
            patch.setattr(log, "close_round", _full)
            with pytest.raises(sqlite3.OperationalError):
                chain.close(AGREE, up=0, down=0)
        assert (chain.threshold, log.is_open(AGREE)) == (None, True)
        chain.close(AGREE, up=0, down=0)
        assert chain.threshold == expected("a")


def test_the_evaluation_follows_after_a_restart(tmp_path: Path) -> None:
    with started(tmp_path) as (chain, _, log):
        trained(chain, log)
        chain.open(opened(AGREE))
        told(log, "a")
        chain.close(AGREE, up=0, down=0)
        evaluate = Phase("main", 1, 1, "evaluate")
        assert log.last_closed("main", 1) == AGREE
        chain.open(opened(evaluate))
        log.close_round(evaluate, up=0, down=0, model=None)
        assert log.last_closed("main", 1) == evaluate


def test_histograms_stand_in_the_log_and_not_in_updates_csv(tmp_path: Path) -> None:
    with closing(Log(tmp_path)) as log:
        log.pin("a", "key")
        told(log, "a")
        assert log.histograms(AGREE) == [histogram(ERRORS["a"])]
    with closing(Log(tmp_path)) as log:
        assert list(log.db.query("SELECT * FROM events WHERE kind = 'damaged'")) == []
    assert "0, 0" not in (tmp_path / "updates.csv").read_text()


def _full(*_: object, **__: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")
