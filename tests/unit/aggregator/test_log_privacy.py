"""What devices say that they have spent: in the log, in `floe status`, and on the page."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from aggregator.log import Log, Outcome
from floe.messages import Phase
from floe.report import Metrics, Privacy, Report
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
