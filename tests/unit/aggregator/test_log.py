"""The log: what is written, what a restart reads back, and the CSV beside it."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.log import Log, Outcome
from aggregator.updates_csv import COLUMNS, difference
from floe.errors import StoreError
from floe.messages import Phase, Status
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.sqlite import Database
from floe.store import CSV, FILE, durably, open_log, present_model, read_log

TRAIN = Phase("main", 1, 1, "train")


def outcome(transfer: str, device: str = "a", result: str = "accepted", phase: Phase = TRAIN) -> Outcome:
    return Outcome(transfer, device, phase, result, "" if result == "accepted" else "weights", "")


def report(accuracy: float, rows: int, base_auc: float | None = None) -> Report:
    before = Metrics(loss=1.0, accuracy=accuracy, roc_auc=base_auc)
    return Report(samples=rows, test_samples=rows, before=before, after=Metrics(loss=0.5, accuracy=1.0), threshold=0.1)


def record(log: Log, *ended: tuple[Outcome, Report]) -> None:
    for one, told in ended:
        log.update(one, told, bytes_=10, sha256="f" * 64, suite="plaintext")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / CSV).open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_update_stands_in_the_database_and_in_the_csv_once(tmp_path: Path) -> None:
    log = Log(tmp_path)
    record(log, (outcome("t1"), report(0.5, 10)), (outcome("t1"), report(0.9, 10)))
    assert log.outcome("t1") == outcome("t1")
    assert log.outcome("t2") is None
    [row] = rows(tmp_path)
    assert (row["device"], row["outcome"], row["accuracy"], row["base_accuracy"]) == ("a", "accepted", "1.0", "0.5")


def test_a_csv_that_a_crash_cut_short_is_whole_after_a_restart(tmp_path: Path) -> None:
    log = Log(tmp_path)
    record(log, (outcome("t1"), report(0.5, 10)), (outcome("t2", "b"), report(0.5, 10)))
    log.close()
    text = (tmp_path / CSV).read_bytes()
    (tmp_path / CSV).write_bytes(text[:-20])
    Log(tmp_path).close()
    assert (tmp_path / CSV).read_bytes() == text


@pytest.mark.parametrize("updates", [0, 2])
def test_a_csv_with_the_columns_of_an_older_version_gets_no_lines_of_another_width(
    tmp_path: Path, updates: int
) -> None:
    log = Log(tmp_path)
    record(log, *((outcome(f"t{device}", device), report(0.5, 10)) for device in "ab"[:updates]))
    log.close()
    right, older = (tmp_path / CSV).read_bytes(), [*COLUMNS[:-9], *COLUMNS[-6:]]
    with (tmp_path / CSV).open("w", newline="") as file:
        writer = csv.DictWriter(file, older, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(io.StringIO(right.decode(), newline="")))
    before = (tmp_path / CSV).read_bytes()
    assert b"epsilon" not in before
    log = Log(tmp_path)
    assert (tmp_path / CSV).read_bytes() == right
    assert (tmp_path / f"{CSV}.damaged").read_bytes() == before
    record(log, (outcome("t9", "c"), report(0.5, 10)))
    log.close()
    with (tmp_path / CSV).open(newline="") as file:
        assert {len(line) for line in csv.reader(file)} == {len(COLUMNS)}


def test_a_line_of_the_csv_stays_one_line_whatever_a_device_says(tmp_path: Path) -> None:
    log = Log(tmp_path)
    nasty = Outcome("t1", "a", TRAIN, "rejected", "device", 'one\ntwo,"three"\r\n=cmd()')
    log.update(nasty, None, bytes_=0, sha256=None, suite="plaintext")
    assert [row["detail"] for row in rows(tmp_path)] == ['one two,"three" =cmd()']


SAID = {
    "=cmd|' /C calc'!A1": "'=cmd|' /C calc'!A1",
    "+1+1": "'+1+1",
    "-1+1": "'-1+1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1+1": "'=1+1",
    "\r\n=1,2": "'=1,2",
    "'); DROP TABLE updates;--": "'); DROP TABLE updates;--",
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "a\0b": "a\\x00b",
    "\x1b[2J": "\\x1b[2J",
    "\u202egnp.exe": "\\u202egnp.exe",
    '"a","b;c': '"a","b;c',
}


@pytest.mark.parametrize("text", SAID)
def test_what_a_device_says_stays_text_in_the_database_and_in_the_csv(tmp_path: Path, text: str) -> None:
    log = Log(tmp_path)
    log.pin("a", "key")
    log.update(Outcome("t1", "a", TRAIN, "rejected", "device", text), None, bytes_=0, sha256=None, suite="plaintext")
    log.event("warning", "rejected", text, device="a")
    log.status(Status(federation="f", sender="a", key="k", proof="", seq=1, state="idle", software=text))
    log.close()
    again = Log(tmp_path)
    assert [row["detail"] for row in again.db.query("SELECT detail FROM updates")] == [" ".join(text.split())]
    assert [row["text"] for row in again.db.query("SELECT text FROM events")] == [text]
    assert [row["software"] for row in again.db.query("SELECT software FROM devices")] == [text]
    [row] = rows(tmp_path)
    assert row["detail"] == SAID[text]
    written = (tmp_path / CSV).read_bytes()
    (tmp_path / CSV).unlink()
    again.close()
    Log(tmp_path).close()
    assert (tmp_path / CSV).read_bytes() == written, "a file that is made anew says the same"


def test_the_metrics_of_a_model_are_measured_by_the_phase_that_starts_from_it(tmp_path: Path) -> None:
    log = Log(tmp_path)
    model = {
        "lineage": "main", "epoch": 1, "round": 0, "sha256": "0" * 64, "file": "global/0.safetensors", "bytes": 1,
        "devices": 1, "samples": 0, "signature": "s",
    }  # fmt: skip
    log.add_model(model)
    log.open_round(TRAIN, "0" * 64, Plan(), "f" * 16, ["a", "b", "c"])
    record(log, (outcome("t1"), report(0.5, 10, 0.8)), (outcome("t2", "b"), report(1.0, 30)))
    record(log, (outcome("t3", "c", "rejected"), report(0.0, 1000)))
    log.close_round(TRAIN, up=5, down=6, model=None)
    measured = present_model(log.db, "main", 1)
    assert measured is not None
    assert (measured["accuracy"], measured["roc_auc"], measured["test_samples"]) == (0.875, 0.8, 40)
    closed = next(iter(log.db.query("SELECT * FROM rounds")))
    assert (closed["state"], closed["accepted"], closed["refused"], closed["bytes_up"]) == ("closed", 2, 1, 5)
    assert log.last_closed("main", 1) == TRAIN
    assert log.open_phase("main", 1) is None


def sums(log: Log, device: str) -> tuple[int, int, str | None]:
    """Rounds, bytes and the transfer of the newest train update of a device, as `devices` has them."""
    sql = (
        "SELECT d.rounds, d.bytes, u.transfer FROM devices d LEFT JOIN updates u ON u.id = d.trained WHERE d.device = ?"
    )
    rounds, bytes_, trained = log.db.execute(sql, [device]).fetchone()
    return rounds, bytes_, trained


def test_a_devices_sums_grow_with_each_update_once_and_a_lost_one_is_taken_back(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.pin("a", "k")
    assert sums(log, "a") == (0, 0, None)
    init, second = Phase("main", 1, 0, "init"), Phase("main", 1, 2, "train")
    record(log, (outcome("t0", phase=init), report(0.5, 10)), (outcome("t1"), report(0.5, 10)))
    record(log, (outcome("t1"), report(0.5, 10)))
    assert sums(log, "a") == (1, 20, "t1")
    record(log, (outcome("t2", phase=second), report(0.5, 10)), (outcome("t3", result="late"), report(0.5, 10)))
    assert sums(log, "a") == (2, 40, "t2")
    log.lost("t2", "damaged")
    assert sums(log, "a") == (1, 40, "t1")
    log.close()


def test_a_round_has_the_devices_own_metrics_weighted_by_test_rows_also_of_late_updates(tmp_path: Path) -> None:
    log, second = Log(tmp_path), Phase("main", 1, 2, "train")
    log.open_round(TRAIN, None, Plan(), "f" * 16, ["a", "b", "c"])
    own = [(1.0, 10, 0.9), (0.5, 30, None)]
    for device, (accuracy, rows_, auc) in zip("ab", own, strict=True):
        told = Report(test_samples=rows_, after=Metrics(loss=accuracy, accuracy=accuracy, roc_auc=auc))
        log.update(outcome(f"t{device}", device), told, bytes_=1, sha256=None, suite="plaintext")
    log.close_round(TRAIN, up=0, down=0, model=None)
    log.open_round(second, None, Plan(), "f" * 16, ["a", "b", "c"])
    late = Report(test_samples=5, after=Metrics(loss=0.25, accuracy=0.25))
    log.update(outcome("tc", "c"), late, bytes_=1, sha256=None, suite="plaintext", merged=2)
    log.close_round(second, up=0, down=0, model=None)
    found = log.db.execute("SELECT local_loss, local_accuracy, local_roc_auc FROM rounds ORDER BY round").fetchall()
    assert found == [(0.625, 0.625, 0.9), (0.25, 0.25, None)]
    log.close()


def test_a_model_is_measured_again_with_each_device_s_newest_measurement(tmp_path: Path) -> None:
    log = Log(tmp_path)
    row = {"lineage": "main", "epoch": 1, "bytes": 1, "devices": 1, "samples": 0, "signature": "s"}
    for number in (0, 1):
        log.add_model({**row, "round": number, "sha256": str(number) * 64, "file": f"global/{number}.safetensors"})
    second = Phase("main", 1, 2, "train")
    log.open_round(TRAIN, "0" * 64, Plan(), "f" * 16, ["a", "b"])
    record(log, (outcome("t1"), report(0.5, 10)))
    log.close_round(TRAIN, up=0, down=0, model=None)
    log.open_round(second, "1" * 64, Plan(), "f" * 16, ["a", "b"])
    late = report(0.9, 30)
    log.update(outcome("t2", "b"), late, bytes_=1, sha256="s", suite="plaintext", merged=2)
    log.update(replace(outcome("t3"), phase=second), report(0.25, 8), bytes_=1, sha256="s", suite="plaintext")
    log.close_round(second, up=0, down=0, model=None)
    found = list(log.db.query("SELECT accuracy, test_samples FROM models ORDER BY round"))
    assert [tuple(row.values()) for row in found] == [((0.5 * 10 + 0.9 * 30) / 40, 40), (0.25, 8)]
    assert [row["accepted"] for row in log.db.query("SELECT accepted FROM rounds ORDER BY round")] == [1, 2]
    assert [u["transfer"] for u in log.merged(second)] == ["t2", "t3"]
    base = log.base_of(TRAIN)
    assert base is not None
    assert base["file"] == "global/0.safetensors"
    assert [log.models_between(TRAIN, used) for used in (TRAIN, second)] == [0, 1]
    assert log.has_ended("b", TRAIN)
    assert not log.has_ended("b", second)


def test_the_last_closed_phase_follows_the_order_of_tasks_not_of_the_alphabet(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for phase in (Phase("main", 1, 0, "init"), Phase("main", 1, 0, "sums")):
        log.open_round(phase, None, Plan(), "f" * 16, [])
        log.close_round(phase, up=0, down=0, model=None)
    assert log.last_closed("main", 1) == Phase("main", 1, 0, "init")


def test_the_first_key_seen_under_a_name_stays(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert log.key_of("a") is None
    log.pin("a", "first")
    log.pin("a", "second")
    assert log.key_of("a") == "first"


def test_an_older_status_changes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.pin("a", "k")

    def status(seq: int, state: str) -> Status:
        return Status(federation="f", sender="a", key="k", proof="", seq=seq, state=state)  # type: ignore[arg-type]

    assert log.status(status(10, "training"))
    assert not log.status(status(9, "offline"))
    log.flush(1.0)
    assert not log.status(status(9, "offline"))
    assert log.status(status(10, "training"))
    assert log.db.execute("SELECT state FROM devices").fetchone() == ("training",)


def test_a_flood_of_equal_refusals_becomes_one_event_that_counts_them(tmp_path: Path) -> None:
    clock = [0.0]
    log = Log(tmp_path, clock=lambda: clock[0])
    for _ in range(1000):
        log.event("warning", "refused", "a: malformed", device="a", reason="malformed")
    clock[0] = 11.0
    log.event("warning", "refused", "a: malformed", device="a", reason="malformed")
    texts = [row["text"] for row in log.db.query("SELECT text FROM events ORDER BY id")]
    assert texts == ["a: malformed", "a: malformed (and 999 more like it)"]


def test_the_log_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path)
    reader = read_log(tmp_path / FILE)
    record(log, (outcome("t1"), report(0.5, 10)))
    assert reader.execute("SELECT count(*) FROM updates").fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM updates")


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(StoreError, match=r"floe\.sqlite: cannot be opened.*move it away"):
        open_log(path)
    assert path.read_bytes() == b"not a database, " * 100


def test_a_csv_that_cannot_be_written_holds_up_no_update_and_is_made_whole_later(tmp_path: Path) -> None:
    log = Log(tmp_path)
    (tmp_path / CSV).unlink()
    (tmp_path / CSV).mkdir()
    record(log, (outcome("t1"), report(0.5, 10)))
    assert log.outcome("t1") is not None
    (tmp_path / CSV).rmdir()
    record(log, (outcome("t2", "b"), report(0.5, 10)))
    assert [row["transfer"] for row in rows(tmp_path)] == ["t1", "t2"]


def test_a_void_round_is_over_and_has_no_model(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.open_round(TRAIN, None, Plan(), "f" * 16, ["a"])
    record(log, (outcome("t1", "a", "rejected"), report(0.0, 10)))
    log.void_round(TRAIN)
    assert log.open_phase("main", 1) is None
    assert log.last_closed("main", 1) == TRAIN
    assert log.db.execute("SELECT state, accepted, refused FROM rounds").fetchall() == [("void", 0, 1)]


@pytest.mark.parametrize("carried", [False, True])
def test_the_csv_says_what_the_table_says_after_a_void_round_and_after_a_lost_update(
    tmp_path: Path, carried: bool
) -> None:
    log = Log(tmp_path)
    log.open_round(TRAIN, None, Plan(), "f" * 16, ["a", "b"])
    record(log, *((outcome(f"t{device}", device), report(0.5, 10)) for device in "abc"))
    log.lost("tb", "damaged")
    assert difference(tmp_path / CSV, log.db) == ""
    log.void_round(TRAIN, carried=carried)
    assert difference(tmp_path / CSV, log.db) == ""
    assert [row["merged"] for row in rows(tmp_path)] == (["2", "", "2"] if carried else ["", "", ""])
    record(log, (outcome("td", "d"), report(0.5, 10)))
    assert difference(tmp_path / CSV, log.db) == ""
    assert [*tmp_path.glob("*.damaged")] == []


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_a_void_round_that_was_cut_off_leaves_a_csv_that_the_next_start_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(BaseException):
        pass

    @contextmanager
    def killed(db: Database) -> Iterator[None]:
        if moment == "before the commit":
            raise Killed
        with durably(db):
            yield
        raise Killed

    log = Log(tmp_path)
    log.open_round(TRAIN, None, Plan(), "f" * 16, ["a"])
    record(log, (outcome("t1"), report(0.5, 10)), (outcome("t2", "b"), report(0.5, 10)))
    monkeypatch.setattr("aggregator.log.durably", killed)
    with pytest.raises(Killed):
        log.void_round(TRAIN)
    monkeypatch.undo()
    assert difference(tmp_path / CSV, log.db) == "cut"
    log.close()
    log = Log(tmp_path)
    assert difference(tmp_path / CSV, log.db) == ""
    assert log.is_open(TRAIN) == (moment == "before the commit")
    assert [*tmp_path.glob("*.damaged")] == []


def test_a_void_round_whose_commit_the_disk_refuses_leaves_a_csv_that_the_next_update_mends(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.open_round(TRAIN, None, Plan(), "f" * 16, ["a"])
    record(log, (outcome("t1"), report(0.5, 10)))
    log.db.execute("PRAGMA query_only = ON")  # as a full disk does: no write is taken
    with pytest.raises(sqlite3.Error):
        log.void_round(TRAIN)
    log.db.execute("PRAGMA query_only = OFF")
    record(log, (outcome("t2", "b"), report(0.5, 10)))
    assert difference(tmp_path / CSV, log.db) == ""


def test_an_event_that_finds_no_room_does_not_undo_what_happened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(tmp_path)
    log.db.execute("PRAGMA query_only = ON")  # as a full disk does: no write is taken
    log.event("info", "closed", "train 1 closed with 2 updates")
    said = capsys.readouterr().err
    assert "train 1 closed with 2 updates" in said
    assert "this event is not in the log" in said


def test_a_rounds_seconds_do_not_follow_the_wall_clock_when_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = 50.0
    log = Log(tmp_path, clock=lambda: moment)
    log.open_round(TRAIN, None, Plan(), "f" * 16, ["a"])
    moment += 3.0
    monkeypatch.setattr("aggregator.log.now", lambda: "2001-01-01T00:00:00.000Z")
    log.close_round(TRAIN, up=0, down=0, model=None)
    assert [row["seconds"] for row in log.db.query("SELECT seconds FROM rounds")] == [3.0]


def test_a_rounds_seconds_are_those_in_which_a_process_had_it_open(tmp_path: Path) -> None:
    for begins, passed in ((100.0, 6.0), (5000.0, 4.0)):
        moment = begins
        log = Log(tmp_path, clock=lambda: moment)  # noqa: B023
        log.open_round(TRAIN, None, Plan(), "f" * 16, ["a"])
        moment += passed
        log.flush(moment)
        log.close()
    log = Log(tmp_path, clock=lambda: 0.0)
    log.open_round(TRAIN, None, Plan(), "f" * 16, ["a"])
    log.close_round(TRAIN, up=0, down=0, model=None)
    assert [row["seconds"] for row in log.db.query("SELECT seconds FROM rounds")] == [10.0]


def device_row(log: Log, device: str = "a") -> tuple[object, ...]:
    log.flush(10.0**9)
    row: tuple[object, ...] = log.db.execute(
        "SELECT key, state, seq FROM devices WHERE device = ?", [device]
    ).fetchone()
    return row


def said(state: str, seq: int, device: str = "a") -> Status:
    return Status(federation="floe", sender=device, key="k", proof="", seq=seq, state=state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "then", "shown"),
    [
        ([], "unverified", "unverified"),
        ([], "approved", "unknown"),
        (["unverified"], "approved", "unknown"),
        (["approved"], "revoked", "revoked"),
        (["approved", "revoked"], "approved", "unknown"),
        (["unverified"], "unverified", "unverified"),
    ],
)
def test_what_the_roster_says_of_a_device_stands_in_its_state(
    tmp_path: Path, before: list[str], then: str, shown: str
) -> None:
    with closing(Log(tmp_path)) as log:
        for state in [*before, then]:
            log.enrolled("a", "k", state)
        assert device_row(log) == ("k", shown, 0)
        log.all_unknown()
        assert device_row(log) == ("k", shown, 0), "nor does a restart change it"


def test_a_member_that_is_approved_again_keeps_its_state_and_other_keys_begin_to_count_anew(tmp_path: Path) -> None:
    with closing(Log(tmp_path)) as log:
        log.enrolled("a", "k", "approved")
        assert log.status(said("idle", 9))
        assert device_row(log) == ("k", "idle", 9)
        log.enrolled("a", "k", "approved")
        assert device_row(log) == ("k", "idle", 9)
        assert not log.status(said("online", 8))
        log.enrolled("a", "other", "approved")
        assert device_row(log) == ("other", "idle", 0)
        assert log.status(said("online", 3))


def test_a_status_that_waits_to_be_written_does_not_undo_a_revocation(tmp_path: Path) -> None:
    with closing(Log(tmp_path)) as log:
        log.enrolled("a", "k", "approved")
        assert log.status(said("training", 5))
        log.enrolled("a", "k", "revoked")
        assert device_row(log) == ("k", "revoked", 0)
