"""Where the rounds stand: who of the expected does what, and that the numbers are those of the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aggregator.log import Log, Outcome
from floe.messages import Phase, Status
from floe.plan import Plan
from floe.selection import EVERYBODY
from floe.store import FILE
from ui.queries import fleet, standing, vitals
from ui.queries.standing import Doing, doing_of, now

PHASE, BEFORE = Phase("main", 1, 3, "train"), Phase("main", 1, 2, "train")
LATER = "2999-01-01T00:00:00.000Z"
EARLIER = "2000-01-01T00:00:00.000Z"
NAMES = ["busy", "done", "gone", "idle", "refused", "sends", "slow"]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(Log(tmp_path)) as made:
        yield made


@pytest.fixture
def db(log: Log, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def says(log: Log, device: str, state: Any, phase: Phase | None) -> None:
    log.pin(device, f"key of {device}")
    log.status(Status(federation="floe", sender=device, key="", proof="", seq=1, state=state, phase=phase))
    log.flush(1e9)
    log._flush_at = 0.0


def ended(log: Log, device: str, outcome: str, phase: Phase = PHASE) -> None:
    log.update(
        Outcome(f"{device} {phase.round}", device, phase, outcome, "", ""), None, bytes_=10, sha256=None, suite=""
    )


def stands(db: sqlite3.Connection, deadline: str | None = LATER) -> None:
    row = ("main", 1, 3, "train", "open", "", 5, 6, 2, 4, "{}", deadline, EARLIER, EARLIER)
    db.execute(f"INSERT OR REPLACE INTO standing VALUES ({', '.join('?' * len(row))})", row)


@pytest.fixture
def scene(log: Log, db: sqlite3.Connection) -> None:
    """A round with a device in every place."""
    for name in ("done", "idle", "refused"):
        says(log, name, "idle", PHASE)
    says(log, "busy", "training", PHASE)
    says(log, "sends", "training", PHASE)
    says(log, "slow", "training", BEFORE)
    says(log, "gone", "offline", PHASE)
    says(log, "other", "online", None)
    log.open_round(PHASE, None, Plan(), EVERYBODY, NAMES)
    ended(log, "done", "accepted")
    ended(log, "refused", "rejected")
    db.execute("INSERT INTO uploads VALUES ('sends', 3, 'train', 4, 31, ?)", (EARLIER,))
    stands(db)


@pytest.mark.usefixtures("scene")
def test_every_expected_device_is_in_its_place(db: sqlite3.Connection) -> None:
    found = now(db, "main", "2026-11-21T10:00:00.000Z")
    assert found.doing == {
        "busy": "training", "done": "done", "gone": "offline", "idle": "waiting", "refused": "refused",
        "sends": "uploading", "slow": "late",
    }  # fmt: skip
    assert found.states == {"idle": 3, "training": 3, "offline": 1, "online": 1}
    assert found.standing is not None
    assert (found.standing.quorum, found.standing.needed, found.standing.deadline_at) == (4, 2, LATER)
    assert found.round is not None
    assert found.round.expected == tuple(NAMES)
    assert [(upload.device, upload.received, upload.chunks) for upload in found.uploads] == [("sends", 4, 31)]


@pytest.mark.usefixtures("scene")
def test_when_the_deadline_is_over_who_has_not_delivered_is_late(db: sqlite3.Connection) -> None:
    stands(db, EARLIER)
    found = now(db, "main", "2026-11-21T10:00:00.000Z").doing
    assert {name for name, what in found.items() if what == "late"} == {"busy", "idle", "slow"}
    assert (found["sends"], found["gone"]) == ("uploading", "offline")


def test_before_the_first_round_there_is_nothing_to_do(db: sqlite3.Connection) -> None:
    found = now(db, "main", EARLIER)
    assert (found.standing, found.round, found.doing, found.states, found.uploads) == (None, None, {}, {}, ())


def test_without_a_standing_the_newest_round_counts(log: Log, db: sqlite3.Connection) -> None:
    for phase in (BEFORE, PHASE):
        log.open_round(phase, None, Plan(), EVERYBODY, ["a"])
    found = now(db, "main", EARLIER)
    assert found.round is not None
    assert (found.standing, found.round.round, found.doing) == (None, 3, {"a": "offline"})


@pytest.mark.parametrize(
    ("state", "at", "outcomes", "upload", "over", "wanted"),
    [
        ("offline", (3, "train"), {"accepted"}, None, True, "done"),
        ("training", (3, "train"), {"rejected"}, None, True, "refused"),
        ("idle", (3, "train"), {"rejected", "accepted"}, None, False, "done"),
        ("unknown", (3, "train"), set(), (3, "train"), False, "offline"),
        ("revoked", (None, None), set(), None, False, "offline"),
        ("training", (3, "train"), {"late"}, None, False, "late"),
        ("training", (3, "train"), set(), (2, "train"), False, "late"),
        ("training", (3, "evaluate"), set(), None, False, "late"),
        ("training", (3, "train"), {"superseded"}, None, False, "training"),
        ("online", (None, None), set(), None, False, "waiting"),
    ],
)
def test_the_first_that_holds_counts(
    state: str, at: tuple[int | None, str | None], outcomes: set[str], upload: tuple[int, str] | None, over: bool,
    wanted: Doing,
) -> None:  # fmt: skip
    assert doing_of((3, "train"), state, at, outcomes, upload, over=over) == wanted


def test_the_newest_vitals_of_each_and_the_history_of_one(log: Log, db: sqlite3.Connection) -> None:
    for place, (member, cpu) in enumerate([("a", 10.0), ("b", 20.0), ("a", 30.0), ("lineage/main", 40.0)], 1):
        db.execute(
            "INSERT INTO vitals (id, member, time, cpu_percent) VALUES (?, ?, ?, ?)", (place, member, EARLIER, cpu)
        )
    for name in ("a", "b", "c"):
        log.pin(name, name)
    db.execute("UPDATE devices SET vitals = (SELECT max(id) FROM vitals WHERE member = device)")
    assert [found.cpu_percent for found in vitals.history(db, "a")] == [10.0, 30.0]
    assert [found.cpu_percent for found in vitals.history(db, "a", 1)] == [30.0]
    assert vitals.aggregator(db, "other") is None
    found = vitals.aggregator(db, "main")
    assert found is not None
    assert (found.cpu_percent, found.temperature_c) == (40.0, None)
    assert [(row.device, row.cpu_percent) for row in fleet.devices(db)] == [("a", 30.0), ("b", 20.0), ("c", None)]


def test_the_dataclasses_have_the_columns_of_their_statements(db: sqlite3.Connection) -> None:
    for sql, kind in (
        (vitals.HISTORY, vitals.Vitals), (vitals.BROKER, vitals.Figure),
        (fleet.DEVICES, fleet.Device), (standing.UPLOADS, standing.Upload),
    ):  # fmt: skip
        columns = [about[0] for about in db.execute(sql, {"member": "", "limit": 1}).description]
        assert columns == list(kind.__dataclass_fields__)
