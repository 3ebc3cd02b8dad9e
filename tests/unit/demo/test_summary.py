"""What the log says, read from a real SQLite log with a few rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from demo.display import Display, picture, round_table, score_words
from demo.summary import Answer, Progress, Scores, progress, summary
from floe.sqlite import Database
from floe.store import open_log
from floe.terminal import size_words

PHASE = {"lineage": "main", "epoch": 1, "plan": "{}", "bar": "0", "expected": '["a", "b"]'}


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_log(tmp_path / "floe.sqlite")


def add_phase(db: Database, round: int, task: str, state: str = "closed", **more: Any) -> None:
    opened = f"2026-11-22T00:00:{len(list(db.query('SELECT 1 FROM rounds'))):02d}Z"
    row = {**PHASE, "round": round, "task": task, "state": state, "opened_at": opened, **more}
    db.table("rounds").insert(row)


def add_update(
    db: Database, device: str, round: int, task: str = "train", outcome: str = "accepted", **more: Any
) -> None:
    number = next(iter(db.query("SELECT count(*) AS n FROM updates")))["n"]
    base = {"transfer": str(number), "lineage": "main", "epoch": 1, "reason": "", "detail": "", "bytes": 0}
    row = {"device": device, "round": round, "task": task, "outcome": outcome, "suite": "plaintext", "time": ""}
    db.table("updates").insert({**base, **row, **more})


def add_model(db: Database, round: int, **more: Any) -> None:
    row = {"lineage": "main", "epoch": 1, "round": round, "sha256": f"{round:064x}", "file": "", "bytes": 1}
    db.table("models").insert({**row, "devices": 2, "samples": 2, "signature": "", "created_at": "", **more})


def closed_federation(db: Database) -> None:
    add_phase(db, 0, "init", bytes_up=10, bytes_down=1, seconds=1.0)
    add_phase(db, 1, "train", bytes_up=20, bytes_down=2, seconds=2.0)
    add_phase(db, 1, "evaluate", bytes_up=30, bytes_down=3, seconds=4.0)
    add_model(db, 0, loss=2.0, accuracy=0.25)
    add_model(db, 1, loss=1.0, accuracy=0.5, roc_auc=0.75)
    add_update(db, "a", 0, "init")
    add_update(db, "a", 1)
    add_update(db, "b", 1, outcome="rejected", reason="device", detail="too few rows")
    add_update(db, "a", 1, "evaluate")


def test_the_summary_is_that_of_the_newest_model_and_sums_the_phases_of_a_round(db: Database) -> None:
    closed_federation(db)
    found = summary(db)
    assert found.final == Scores(1.0, 0.5, 0.75)
    assert [(row.round, row.bytes_up, row.bytes_down, row.seconds) for row in found.table] == [
        (0, 10, 1, 1.0),
        (1, 50, 5, 6.0),
    ]
    assert (found.bytes_up, found.bytes_down, found.updates_accepted) == (60, 6, 1)
    assert found.model_sha256 == f"{1:064x}"


def test_without_a_global_model_the_devices_own_are_averaged_by_their_test_rows(db: Database) -> None:
    add_phase(db, 1, "train")
    add_update(db, "a", 1, loss=1.0, accuracy=0.0, test_samples=1)
    add_update(db, "b", 1, loss=5.0, accuracy=1.0, roc_auc=0.5, test_samples=3)
    found = summary(db)
    assert found.final == Scores(4.0, 0.75, 0.5)
    assert found.model_sha256 is None
    assert found.table[0].devices == 2


def test_all_is_closed_only_when_the_last_measurement_is(db: Database) -> None:
    closed_federation(db)
    assert progress(db).closed(1, "weights")
    assert not progress(db).closed(2, "weights")
    db.execute("UPDATE rounds SET state = 'open' WHERE task = 'evaluate'")
    assert not progress(db).closed(1, "weights")
    assert progress(db).closed(1, "accuracy"), "devices that only report have no global model to measure"


def test_a_void_round_is_not_closed_and_is_named(db: Database) -> None:
    closed_federation(db)
    assert progress(db).void() is None
    db.execute("UPDATE rounds SET state = 'void' WHERE task = 'train'")
    void = progress(db).void()
    assert void is not None
    assert (void.task, void.round) == ("train", 1)
    assert not progress(db).closed(1, "weights")


def test_a_phase_is_hopeless_when_every_device_was_refused_and_not_before(db: Database) -> None:
    add_phase(db, 0, "sums", state="open")
    add_update(db, "a", 0, "sums", "rejected", reason="device", detail="3 rows")
    assert progress(db).refused() == []
    add_update(db, "b", 0, "sums", "rejected", reason="schema", detail="\x1b[31mred")
    assert progress(db).refused() == [
        Answer("a", "rejected", "device: 3 rows"),
        Answer("b", "rejected", "schema: \\x1b[31mred"),
    ]
    add_update(db, "b", 0, "sums", "accepted")
    assert progress(db).refused() == []


def test_a_device_shows_its_newest_training(db: Database) -> None:
    db.table("devices").insert({"device": "a", "key": "", "state": "idle", "seq": 1, "first_seen": "", "last_seen": ""})
    add_update(db, "a", 1, samples=5, loss=3.0, base_loss=4.0)
    add_update(db, "a", 2, samples=7, loss=1.0, base_loss=2.0)
    add_update(db, "a", 2, "evaluate", base_loss=9.0)
    (device,) = progress(db).devices
    assert (device.state, device.rows, device.before.loss, device.after.loss) == ("idle", 7, 2.0, 1.0)


def shown(console: Console) -> str:
    return console.export_text()


def test_plain_progress_says_each_closed_phase_and_each_refusal_once(db: Database) -> None:
    console = Console(record=True, file=io.StringIO(), width=200)
    with Display(console, "a demo", 1, live=False) as display:
        add_phase(db, 0, "init", seconds=1.0)
        display.update(progress(db))
        add_phase(db, 1, "train", state="open")
        add_update(db, "b", 1, outcome="rejected", reason="weights", detail="[bold]NaN")
        display.update(progress(db))
        display.update(progress(db))
    text = shown(console)
    assert text.count("init closed, 1.0 s") == 1
    assert text.count("b: rejected: weights: [bold]NaN") == 1


def test_a_training_round_tells_of_the_model_that_it_started_from(db: Database) -> None:
    closed_federation(db)
    console = Console(record=True, file=io.StringIO(), width=200)
    with Display(console, "a demo", 1, live=False) as display:
        display.update(progress(db))
    lines = shown(console).splitlines()
    assert "round 1 of 1: train closed, 2.0 s; global model 0: loss 2.0000, accuracy 25.0 %" in lines
    assert "round 1 of 1: evaluate closed, 4.0 s; global model 1: loss 1.0000, accuracy 50.0 %, ROC-AUC 0.7500" in lines


def test_the_live_picture_has_every_device_with_its_answer(db: Database) -> None:
    add_phase(db, 1, "train", state="open")
    row = {"key": "", "seq": 1, "first_seen": "", "last_seen": ""}
    db.table("devices").insert_all({"device": f"d-{i}", "state": "training", **row} for i in range(1, 15))
    add_update(db, "d-2", 1, samples=5, loss=3.0, base_loss=4.0, accuracy=1.0, base_accuracy=0.5)
    console = Console(record=True, file=io.StringIO(), width=120)
    console.print(picture("a demo", progress(db), 3, 7.0))
    text = shown(console)
    assert "round 1 of 3: train, 1 of 2 devices answered, 7 s" in text
    (line,) = [line for line in text.splitlines() if line.startswith("d-2 ")]
    assert "4.0000 → 3.0000" in line
    assert "50.0 % → 100.0 %" in line
    assert line.endswith("accepted")
    assert "and 2 more" in text


def test_before_the_first_round_the_picture_says_what_is_awaited() -> None:
    console = Console(record=True, file=io.StringIO())
    console.print(picture("a demo", Progress(), 3, 0.0))
    assert "waiting for the devices" in shown(console)


def test_the_table_at_the_end_has_a_line_for_each_round(db: Database) -> None:
    closed_federation(db)
    console = Console(record=True, file=io.StringIO(), width=120)
    console.print(round_table(summary(db)))
    assert shown(console).splitlines()[-1].split() == [
        "1",
        "2",
        "1.0000",
        "50.0",
        "%",
        "0.7500",
        "50",
        "B",
        "5",
        "B",
        "6.0",
    ]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2e9, "2.0 GB"), (5e12, "5000.0 GB")],
)
def test_sizes_are_in_decimal_units(count: float, words: str) -> None:
    assert size_words(count) == words


def test_a_score_without_a_roc_curve_leaves_it_out() -> None:
    assert score_words(Scores(0.5, 0.25, None)) == "loss 0.5000, accuracy 25.0 %"
