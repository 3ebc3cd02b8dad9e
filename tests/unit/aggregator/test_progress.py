"""What the stop criteria look at: the models' measurements, or, where no weights are sent, the devices' reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aggregator.log import Log, Outcome
from aggregator.phases import Policy, Progress
from aggregator.progress import read_progress
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.settings import Rounds


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def report(log: Log, device: str, round_: int, accuracy: float, test: int, outcome: str = "accepted") -> None:
    """After `accuracy` the loss is its complement; the base was worse."""
    phase = Phase("main", 1, round_, "train")
    metrics = Metrics(1 - accuracy, accuracy)
    ended = Outcome(f"{device}{round_}".ljust(32, "0"), device, phase, outcome, "", "")
    made = Report(samples=10, test_samples=test, before=Metrics(9.0, 0.0), after=metrics if test else None)
    log.update(ended, made, bytes_=0, sha256=None, suite="plaintext")


def progress(log: Log, round_: int, since: int = 0, **rounds: Any) -> Progress:
    policy = Policy(Rounds(**rounds), Plan(report="accuracy"))
    return read_progress(log.db, Phase("main", 1, round_, "train"), policy, since)


def test_reports_alone_are_measured_by_round_and_weighted_by_test_rows(log: Log) -> None:
    assert progress(log, 1) == Progress()
    report(log, "a", 1, 0.5, 30)
    report(log, "b", 1, 0.9, 10)
    report(log, "c", 1, 0.1, 90, outcome="rejected")
    report(log, "d", 1, 0.1, 0)
    assert progress(log, 1).newest == pytest.approx(0.6)
    assert progress(log, 1, metric="loss").newest == pytest.approx(0.4)
    assert progress(log, 1, metric="roc_auc") == Progress()


def test_rounds_since_the_best_count_from_the_last_start(log: Log) -> None:
    for round_, accuracy in enumerate((0.5, 0.9, 0.8, 0.8), 1):
        report(log, "a", round_, accuracy, 10)
    assert progress(log, 4) == Progress(0.8, 2)
    assert progress(log, 4, metric="loss").since_best == 2
    assert progress(log, 4, since=2) == Progress(0.8, 1)
    assert progress(log, 3) == Progress(0.8, 1), "a phase knows nothing of later ones"


def test_models_are_measured_by_the_round_after_them(log: Log) -> None:
    for round_, accuracy in enumerate((0.9, 0.5, 0.7)):
        log.add_model(
            {"lineage": "main", "epoch": 1, "round": round_, "sha256": "a" * 64, "file": "f", "bytes": 1, "devices": 1,
             "samples": 1, "signature": "", "accuracy": accuracy}
        )  # fmt: skip
    policy = Policy(Rounds(), Plan())
    assert read_progress(log.db, Phase("main", 1, 2, "train"), policy, 0) == Progress(0.5, 1)
    assert read_progress(log.db, Phase("main", 1, 3, "train"), policy, 0) == Progress(0.7, 2)
    assert read_progress(log.db, Phase("main", 1, 3, "train"), policy, 1) == Progress(0.7, 0)
