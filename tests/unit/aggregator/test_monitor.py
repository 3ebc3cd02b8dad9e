"""What is watched: which telemetry is taken, what is kept of it, and that nothing of it harms the rounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from helpers.wire import ANN, EVE, SECRET

from aggregator import monitor, waiting
from aggregator.figures import MAX_BRIDGES, TOPICS, Figures
from aggregator.kept import KEPT, PRUNE, SLACK
from aggregator.log import Log
from aggregator.monitor import Monitor
from aggregator.phases import Policy
from aggregator.pins import Pins
from aggregator.states import State
from floe.errors import Refused
from floe.identity import Identity
from floe.keyring import Keyring
from floe.messages import Manifest, Phase
from floe.parcel import seal_meta
from floe.plan import Plan
from floe.settings import Rounds
from floe.telemetry import Line, Telemetry
from floe.topics import DeviceTelemetry
from floe.vitals import Sampler

PHASE = Phase("main", 1, 3, "train")
KEYRING = Keyring("chacha20-poly1305", SECRET)


class Watched:
    """A monitor on a log, whose state and uploads can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = State(PHASE, stage="open", online=frozenset({"ann"}), expected=frozenset({"ann"}), deadline=1e6)
        self.uploads: list[Any] = []
        self.moment = 1000.0
        self.plan = "{}"
        self.start()

    def start(self) -> None:
        self.log = Log(self.folder, clock=lambda: self.moment)
        self.monitor = Monitor(
            self.log, Pins(self.log, KEYRING), KEYRING, Policy(Rounds(), Plan()), Sampler(self.folder),
            state=lambda: self.state, uploads=lambda: self.uploads, model=lambda: "a" * 64,
            plan=lambda: self.plan,
        )  # fmt: skip

    def hear(self, told: Telemetry, seq: int, who: Identity = ANN, **core: Any) -> None:
        self.monitor.hear(DeviceTelemetry("floe", who.name, "main"), made(told, seq, who, **core))

    def tick(self, seconds: float = 1.0) -> None:
        self.moment += seconds
        self.monitor.tick(self.moment)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self.log.db.execute(sql).fetchall())


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.log.close()


def made(told: Telemetry, seq: int, who: Identity = ANN, to: str = "main", **changes: Any) -> Manifest:
    """A message of `who` whose core is changed before it is sealed."""
    said: dict[str, Any] = {"federation": "floe", "sender": who.name, "kind": "telemetry", "base": "", "size": 0}
    said |= {"phase": PHASE} | changes
    core, key = seal_meta(msgspec.json.encode(told).decode(), KEYRING, **said)
    proof = KEYRING.proof("floe", who.name, who.key)
    envelope = KEYRING.envelope(core, key, to)
    return Manifest(
        federation="floe", sender=who.name, key=who.key, proof=proof, seq=seq, core=core, envelope=envelope
    )  # fmt: skip


def test_vitals_and_lines_of_a_device_are_in_the_log_with_the_next_write(watched: Watched) -> None:
    lines = (Line(3600.0, "warning", "two\nlines\tin one"), Line(0.0, "info", "b"))
    watched.hear(Telemetry(cpu_percent=12.5, retries=2, model_sha256="b" * 64, lines=lines, dropped=7), 5)
    watched.tick()
    found = watched.rows("SELECT cpu_percent, temperature_c, retries, model_sha256 FROM vitals WHERE member = 'ann'")
    assert found == [(12.5, None, 2, "b" * 64)]
    assert watched.rows("SELECT device, level, text FROM journal ORDER BY id") == [
        ("ann", "info", "7 lines before this found no place"), ("ann", "warning", "two lines in one"),
        ("ann", "info", "b"),
    ]  # fmt: skip
    [(older,)] = watched.rows("SELECT julianday(b.said_at) - julianday(a.said_at) FROM journal a, journal b WHERE "
                              "a.text LIKE 'two%' AND b.text = 'b'")  # fmt: skip
    assert older == pytest.approx(1 / 24, abs=1e-4)
    newest = "SELECT d.telemetry_seq, v.member FROM devices d JOIN vitals v ON v.id = d.vitals"
    assert watched.rows(newest) == [(5, "ann")]


def test_a_lines_time_is_when_it_was_heard_whatever_the_device_says_and_however_late_it_is_written(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, age in enumerate((0.0, 1e9, 3.5)):
        monkeypatch.setattr(monitor, "now", lambda number=number: f"2026-01-01T00:00:1{number}.000Z")
        watched.hear(Telemetry(lines=(Line(age, "info", "x"),)), number + 1)
    monkeypatch.setattr(monitor, "now", lambda: "2026-01-01T00:00:59.000Z")
    watched.tick()
    assert watched.rows("SELECT time, said_at FROM journal ORDER BY id") == [
        ("2026-01-01T00:00:10.000Z", "2026-01-01T00:00:10.000Z"),
        ("2026-01-01T00:00:11.000Z", "1994-04-24T22:13:31.000Z"),
        ("2026-01-01T00:00:12.000Z", "2026-01-01T00:00:08.500Z"),
    ]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_telemetry_that_is_played_again_or_is_older_is_refused(
    watched: Watched, written: bool, restarted: bool
) -> None:
    watched.hear(Telemetry(retries=1), 5)
    if written or restarted:
        watched.tick()
    if restarted:
        watched.log.close()
        watched.start()
    for seq in (5, 4):
        with pytest.raises(Refused, match="duplicate"):
            watched.hear(Telemetry(retries=1), seq)
    watched.hear(Telemetry(retries=2), 6)
    watched.tick()
    assert watched.rows("SELECT retries FROM vitals WHERE member = 'ann' ORDER BY id") == [(1,), (2,)]


def test_a_device_with_another_key_begins_to_count_anew(watched: Watched) -> None:
    watched.hear(Telemetry(), 2**40)
    watched.tick()
    with watched.log.db.atomic():
        watched.log.enrolled("ann", EVE.key, "approved")
    watched.hear(Telemetry(retries=9), 3, Identity("ann", EVE.private))
    watched.tick()
    assert watched.rows("SELECT telemetry_seq FROM devices") == [(3,)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "update"}, "malformed"),
        ({"kind": "model"}, "malformed"),
        ({"sender": "bob"}, "malformed"),
        ({"federation": "other"}, "malformed"),
        ({"phase": Phase("mine", 1, 3, "train")}, "malformed"),
        ({"phase": Phase("main", 2, 3, "train")}, "round"),
        ({"to": "mine"}, "not-for-us"),
        ({"base": "b" * 64}, "base"),
        ({"size": 1}, "oversized"),
    ],
)
def test_what_is_not_this_devices_telemetry_for_us_is_refused(
    watched: Watched, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused) as refusal:
        watched.hear(Telemetry(), 1, **changes)
    assert refusal.value.reason == reason
    watched.tick()
    assert watched.rows("SELECT * FROM vitals WHERE member != 'lineage/main'") == []


def test_another_key_than_the_one_that_was_seen_first_says_nothing_of_a_device(watched: Watched) -> None:
    watched.hear(Telemetry(), 1)
    with pytest.raises(Refused, match="unknown-key"):
        watched.hear(Telemetry(), 2, Identity("ann", EVE.private))


def test_a_device_that_reports_too_often_is_counted_and_its_rows_are_few(watched: Watched) -> None:
    for seq in range(1, 100):
        watched.hear(Telemetry(retries=seq), seq)
    watched.tick()
    assert len(watched.rows("SELECT * FROM vitals WHERE member = 'ann'")) == waiting.BURST
    watched.log.flush(watched.moment)
    counted = watched.rows("SELECT count FROM refusals WHERE device = 'ann' AND reason = 'flood'")
    assert counted == [(99 - waiting.BURST,)]


def test_of_each_member_only_the_newest_rows_are_kept_and_a_few_more(watched: Watched) -> None:
    counts: dict[str, list[int]] = {"vitals": [], "journal": []}
    for seq in range(1, 471):
        lines = tuple(Line(0.0, "info", f"{seq}/{number}") for number in range(3))
        watched.hear(Telemetry(retries=seq, lines=lines), seq)
        watched.tick()
        if seq % 30 == 0 and seq > 330:  # however often it begins anew
            watched.log.close()
            watched.start()
        counts["vitals"].append(watched.rows("SELECT count(*) FROM vitals WHERE member = 'ann'")[0][0])
        counts["journal"].append(watched.rows("SELECT count(*) FROM journal")[0][0])
    for table, found in counts.items():
        assert max(found) < KEPT[table] + SLACK[table]
        assert min(found[250:]) >= KEPT[table]
    assert watched.rows("SELECT max(retries) - min(retries) + 1 - count(*) FROM vitals WHERE member = 'ann'") == [(0,)]
    assert watched.rows("SELECT text FROM journal ORDER BY id DESC LIMIT 1") == [("470/2",)]
    assert watched.rows("SELECT count(*) > 1 FROM vitals WHERE member = 'lineage/main'") == [(1,)]


def test_rows_that_the_disk_refused_to_remove_go_the_next_time(watched: Watched) -> None:
    counts = []
    for seq in range(1, 302):
        watched.hear(Telemetry(), seq)
        if refuses := seq == 1 + 5 * SLACK["vitals"]:  # when they are counted
            watched.log.db.execute(
                "CREATE TEMP TRIGGER full BEFORE INSERT ON standing BEGIN SELECT RAISE(FAIL, 'full'); END"
            )
        watched.tick()
        if refuses:
            watched.log.db.execute("DROP TRIGGER full")
        counts += watched.rows("SELECT count(*) FROM vitals WHERE member = 'ann'")
    assert max(counts) < (KEPT["vitals"] + SLACK["vitals"],)


def test_lines_of_all_devices_stand_in_the_order_in_which_they_were_heard(watched: Watched) -> None:
    for seq, who in enumerate((ANN, EVE, ANN), 1):
        watched.hear(Telemetry(lines=(Line(9.0 * seq, "info", f"{who.name} {seq}"),)), seq, who)
    watched.tick()
    found = watched.rows("SELECT text, time FROM journal ORDER BY id")
    assert [text for text, _ in found] == ["ann 1", "eve 2", "ann 3"]
    assert [time for _, time in found] == sorted(time for _, time in found)
    assert watched.rows("SELECT d.device, v.member FROM devices d JOIN vitals v ON v.id = d.vitals ORDER BY 1") == [
        ("ann", "ann"), ("eve", "eve"),
    ]  # fmt: skip


@pytest.mark.parametrize(("bound", "most"), [("REPORTS", 2), ("LINES", 7)])
def test_a_write_takes_a_portion_and_the_next_ones_the_rest(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(waiting, bound, most)
    for seq, who in enumerate((ANN, EVE, ANN, EVE, ANN), 1):
        watched.hear(Telemetry(lines=(Line(0.0, "info", "x"),) * 3), seq, who)
    counts = []
    for _ in range(4):
        watched.tick()
        counts += watched.rows("SELECT count(*) FROM journal")
    assert counts == [(6,), (12,), (15,), (15,)]
    with pytest.raises(Refused, match="duplicate"):
        watched.hear(Telemetry(), 5)


def test_beyond_what_may_wait_of_all_the_newest_is_dropped_and_counted(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MAX_BYTES", 2 * len(made(Telemetry(retries=1), 1).core.meta) + 10)
    for seq, who in enumerate((ANN, EVE, EVE), 1):
        watched.hear(Telemetry(retries=seq), seq, who)
    watched.tick()
    assert watched.rows("SELECT retries FROM vitals WHERE retries ORDER BY id") == [(1,), (2,)]
    watched.log.flush(watched.moment)
    assert watched.rows("SELECT device, count FROM refusals WHERE reason = 'flood'") == [("eve", 1)]
    watched.hear(Telemetry(retries=4), 4, EVE)
    watched.tick()
    assert watched.rows("SELECT max(retries) FROM vitals") == [(4,)], "there is room again"


@pytest.mark.parametrize(("table", "column"), [("vitals", "member"), ("journal", "device")])
def test_pruning_looks_at_the_rows_of_its_member_alone(watched: Watched, table: str, column: str) -> None:
    plan = watched.log.db.execute("EXPLAIN QUERY PLAN " + PRUNE.format(table, column), ("a", "a", 5))
    steps = [row[3] for row in plan.fetchall()]
    assert not any("SCAN" in step for step in steps), steps
    assert sum(f"USING COVERING INDEX {table}_by_{column}" in step for step in steps) >= 1, steps


def test_a_disk_that_refuses_harms_nobody_and_is_told_once(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.tick()
    watched.log.db.execute("PRAGMA query_only = ON")
    for _ in range(5):
        watched.tick()
        watched.state = State(PHASE, stage="closing")
    assert capsys.readouterr().err.count("what is watched is not in the log") == 1
    watched.log.db.execute("PRAGMA query_only = OFF")
    watched.tick()
    assert watched.rows("SELECT stage FROM standing") == [("closing",)]


def test_where_the_rounds_stand_is_written_when_it_changes_and_every_ten_seconds(watched: Watched) -> None:
    watched.tick()
    [row] = watched.log.db.query("SELECT * FROM standing")
    assert {name: row[name] for name in ("lineage", "epoch", "round", "task", "stage", "online", "needed")} == {
        "lineage": "main", "epoch": 1, "round": 3, "task": "train", "stage": "open", "online": 1, "needed": 1,
    }  # fmt: skip
    assert row["deadline_at"] > row["changed_at"]
    for seconds, written in ((1.0, False), (9.5, True)):
        watched.log.db.execute("UPDATE standing SET changed_at = 'before', deadline_at = 'never'")
        watched.tick(seconds)
        assert (watched.rows("SELECT changed_at FROM standing") == [(row["changed_at"],)]) == written, "the change's"
    assert watched.rows("SELECT deadline_at FROM standing") != [("never",)]
    watched.plan = '{"epochs": 2}'
    watched.tick()
    assert watched.rows("SELECT plan FROM standing") == [('{"epochs": 2}',)]
    watched.state = State(PHASE, stage="finished", last=3)
    watched.tick()
    assert watched.rows("SELECT stage, needed, deadline_at FROM standing") == [("finished", 0, None)]


def test_uploads_are_those_under_way_and_none_after_a_restart(watched: Watched) -> None:
    upload = Mock(device="ann", phase=PHASE, since="2026-01-01T00:00:00.000Z")
    upload.incoming.assembly.have, upload.incoming.core.chunks = {0, 1}, ("0" * 64,) * 5
    watched.uploads = [upload]
    watched.tick()
    assert watched.rows("SELECT * FROM uploads") == [("ann", 3, "train", 2, 5, "2026-01-01T00:00:00.000Z")]
    watched.log.close()
    watched.uploads = []
    watched.start()
    watched.tick()
    assert watched.rows("SELECT * FROM uploads") == []


def test_the_aggregator_samples_itself_once_at_the_start_and_every_minute(watched: Watched) -> None:
    for _ in range(130):
        watched.tick()
    own = watched.rows("SELECT model_sha256, retries FROM vitals WHERE member = 'lineage/main'")
    assert own == [("a" * 64, None)] * 3


def test_what_a_broker_says_of_itself_is_short_text_of_few_topics() -> None:
    figures = Figures()
    figures.hear("$SYS/broker/version", b"mosquitto\n" + b"\xff" * 500)
    figures.hear("$SYS/broker/clients/disconnected", b"7")
    figures.hear("$SYS/broker/version/../state", b"7")
    for number in range(MAX_BRIDGES + 50):
        figures.hear(f"$SYS/broker/connection/bridge {number}/state", b"1")
    figures.hear("$SYS/broker/connection/bridge 0/state", b"0")
    assert figures.changed["$SYS/broker/version"] == "mosquitto " + "\ufffd" * 90
    assert figures.changed["$SYS/broker/connection/bridge 0/state"] == "0"
    assert len(figures.changed) == 1 + MAX_BRIDGES
    assert set(figures.changed) & TOPICS == {"$SYS/broker/version"}


def test_the_brokers_figures_are_written_together_every_ten_seconds(watched: Watched) -> None:
    watched.monitor.figures.hear("$SYS/broker/uptime", b"1 seconds")
    watched.tick()
    assert watched.rows("SELECT topic, value FROM broker") == [("$SYS/broker/uptime", "1 seconds")]
    watched.monitor.figures.hear("$SYS/broker/uptime", b"6 seconds")
    watched.hear(Telemetry(), 1)
    watched.tick()
    assert watched.rows("SELECT value FROM broker") == [("1 seconds",)]
    watched.tick(10)
    assert watched.rows("SELECT value FROM broker") == [("6 seconds",)]
