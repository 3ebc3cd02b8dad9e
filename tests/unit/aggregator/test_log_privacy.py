"""What devices say that they have spent: in the log, in `floe status`, and on the page."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aggregator.log import Log, Outcome
from floe.messages import Phase
from floe.report import Metrics, Privacy, Report
from floe.sqlite import Database
from floe.store import durably
from ui.pages.overview import privacy_words
from ui.queries.fleet import device
from ui.queries.history import parts
from ui.queries.standing import spent

TRAIN = Phase("main", 1, 1, "train")


def update(log: Log, name: str, epsilon: float | None, outcome: str = "accepted") -> None:
    log.pin(name, f"key of {name}")
    privacy = Privacy(epsilon, 1e-5, "rdp") if epsilon is not None else None
    report = Report(samples=10, after=Metrics(0.5, 0.5), privacy=privacy)
    ended = Outcome(f"{name} {epsilon}".ljust(32, "0"), name, TRAIN, outcome, "", "")  # type: ignore[arg-type]
    log.update(ended, report, bytes_=1, sha256=None, suite="plaintext")


def test_an_accepted_update_says_what_its_device_has_spent(tmp_path: Path) -> None:
    with closing(Log(tmp_path)) as log:
        update(log, "ann", 1.2301)
        update(log, "bob", 0.5)
        update(log, "cam", None)
        db = log.db.conn
        ann, cam, most = device(db, "ann"), device(db, "cam"), spent(db, "main")
        told = parts(db, "main", "ann")[0].epsilon
    assert ann
    assert (ann.epsilon, ann.delta, ann.accountant, told) == (1.2301, 1e-5, "rdp", 1.2301)
    assert cam
    assert cam.epsilon is None
    assert most
    assert most.words() == "epsilon 1.24 (example, delta 1e-05, rdp)"
    assert privacy_words(most) == ("Epsilon (example, delta 1e-05, rdp)", "1.24")


def test_a_refused_update_changes_nothing_of_its_device(tmp_path: Path) -> None:
    with closing(Log(tmp_path)) as log:
        update(log, "ann", 1.0)
        update(log, "ann", 9.0, "rejected")
        assert next(iter(log.db.query("SELECT epsilon FROM devices")))["epsilon"] == 1.0


def said(log: Log, number: int, epsilon: float, *, epoch: int = 1, **about: Any) -> None:
    """What "ann" says with the update of a round."""
    delta, accountant = about.get("delta", 1e-5), about.get("accountant", "rdp")
    report = Report(samples=10, after=Metrics(0.5, 0.5), privacy=Privacy(epsilon, delta, accountant))
    transfer = f"{epoch}-{number}-{about.get('device', 'ann')}"
    ended = Outcome(transfer, about.get("device", "ann"), Phase("main", epoch, number, "train"), "accepted", "", "")
    log.update(ended, report, bytes_=1, sha256=None, suite="plaintext", merged=about.get("merged"))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A log with two devices, in which no warning is counted in the place of another."""
    monkeypatch.setattr("aggregator.events.REPEAT_S", 0.0)
    with closing(Log(tmp_path)) as found:
        for device in ("ann", "bob"):
            found.pin(device, f"key of {device}")
        yield found


def warnings(log: Log) -> list[str]:
    sql = "SELECT text FROM events WHERE (level, kind, device, reason) = ('warning', 'privacy', 'ann', 'account-fell')"
    return [row["text"] for row in log.db.query(sql)]


def spent_by(log: Log, device: str = "ann") -> float:
    (row,) = log.db.query("SELECT epsilon FROM devices WHERE device = ?", [device])
    return float(row["epsilon"])


def test_an_account_that_fell_is_a_warning_once_with_both_figures_and_what_they_mean(log: Log) -> None:
    for number, epsilon in enumerate((4.0, 5.0, 0.8, 1.1, 1.3), 1):
        said(log, number, epsilon)
    assert warnings(log) == [
        "ann: says epsilon 0.80 (example, delta 1e-05, rdp) in all, and said epsilon 5.00 (example, delta 1e-05, rdp) "
        "before: its privacy ledger was lost, or an older one is in its place. What had left it counts all the same: "
        "add 5.00 to what it says from now on, and delta to delta"
    ]
    said(log, 1, 0.2, epoch=2)
    assert len(warnings(log)) == 2, "another fall, from the account that began at 0.8"


def test_an_account_is_compared_with_the_last_one_however_long_ago_and_whoever_else_spoke(log: Log) -> None:
    said(log, 1, 5.0)
    for number in range(2, 60):
        ended = Outcome(f"t{number}", "ann", Phase("main", 1, number, "train"), "accepted", "", "")
        log.update(ended, Report(samples=10, after=Metrics(0.5, 0.5)), bytes_=1, sha256=None, suite="plaintext")
        said(log, number, 0.1 * number, device="bob")
    said(log, 60, 4.9)
    assert len(warnings(log)) == 1


@pytest.mark.parametrize(
    ("about", "fell"),
    [
        ({}, True),
        ({"delta": 1e-6}, True),  # costs more, not less
        ({"delta": 1e-4}, False),
        ({"accountant": "prv"}, False),
    ],
)
def test_accounts_that_cannot_be_compared_are_not(log: Log, about: dict[str, Any], fell: bool) -> None:
    said(log, 1, 5.0)
    said(log, 2, 4.0, **about)
    assert bool(warnings(log)) is fell


def test_the_same_account_again_has_not_fallen_nor_has_one_by_the_last_bit(log: Log) -> None:
    said(log, 1, 5.0)
    said(log, 2, 5.0)
    said(log, 3, 5.0 * (1 - 2**-52))
    assert warnings(log) == []


def test_an_update_that_a_later_one_has_overtaken_is_no_fall_and_what_is_spent_stays(log: Log) -> None:
    said(log, 1, 1.0)
    said(log, 4, 4.0)
    said(log, 2, 2.0, merged=5)
    said(log, 3, 3.0, merged=5)
    assert spent_by(log) == 4.0
    said(log, 5, 3.5)
    said(log, 1, 1.0)
    assert len(warnings(log)) == 1, "5 after 4 is one; 2, 3 and the second record of 1 are none"
    assert spent_by(log) == 3.5


def test_a_late_account_above_that_of_the_next_round_is_a_fall_and_says_what_to_add(log: Log) -> None:
    said(log, 1, 1.0)
    said(log, 3, 0.8)  # the ledger was lost after round 2, which comes last
    said(log, 2, 5.0, merged=4)
    assert [text.rpartition(" to what it says")[0].rpartition(" ")[2] for text in warnings(log)] == ["1.00", "5.00"]
    assert spent_by(log) == 0.8


def test_a_fall_is_in_the_log_with_the_update_or_neither_is(
    log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said(log, 1, 5.0)
    capsys.readouterr()

    @contextmanager
    def killed(db: Database) -> Iterator[None]:
        with durably(db):
            yield
        raise KeyboardInterrupt  # the process ends between the commit and whatever comes next

    monkeypatch.setattr("aggregator.log.durably", killed)
    with pytest.raises(KeyboardInterrupt):
        said(log, 2, 4.0)
    assert (len(warnings(log)), log.outcome("1-2-ann") is not None) == (1, True)

    monkeypatch.setattr("aggregator.log.durably", durably)
    log.db.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'disk is full'); END")
    with pytest.raises(sqlite3.Error):
        said(log, 3, 3.0)
    log.db.execute("DROP TRIGGER full")
    assert (len(warnings(log)), log.outcome("1-3-ann"), spent_by(log)) == (1, None, 4.0)
    monkeypatch.undo()
    said(log, 3, 3.0)
    assert len(warnings(log)) == 2
    assert capsys.readouterr().err.count("warning ann: says epsilon 3.00") == 1


def test_what_a_refused_update_says_is_not_compared(log: Log) -> None:
    said(log, 1, 5.0)
    update(log, "ann", 1.0, "rejected")
    assert warnings(log) == []
    said(log, 2, 5.5)
    update(log, "ann", 9.0, "rejected")
    said(log, 3, 6.0)
    assert warnings(log) == []
