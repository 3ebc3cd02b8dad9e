"""When a device reports, which of its lines, and how much of them at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.wire import ANN, PHASE, keyring

from edge_client import telemetry
from edge_client.telemetry import Journal, Reporter
from floe.keyring import Keyring, open_meta
from floe.messages import MAX_MESSAGE_BYTES, Manifest, Suite
from floe.parcel import seal_meta
from floe.settings import Device
from floe.telemetry import Line, Telemetry
from floe.vitals import Sampler


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Voice:
    """In the place of a `Wire`: keeps what is sent."""

    federation = "floe"
    identity = ANN

    def __init__(self) -> None:
        self.sent: list[tuple[str, Manifest]] = []

    def send(self, topic: object, kind: type[Manifest], **fields: Any) -> None:
        header: dict[str, Any] = {"federation": "floe", "sender": "ann", "key": ANN.key, "proof": "", "seq": 1}
        self.sent.append((str(topic), kind(**header, **fields)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(telemetry.random, "uniform", lambda low, high: (low + high) / 2)
    return Clock()


def reporter(
    journal: Journal, folder: Path, clock: Clock, ring: Keyring | None = None, telemetry_s: float = 60.0
) -> Reporter:
    settings = Device(telemetry_s=telemetry_s)
    return Reporter(settings, ring or keyring("plaintext"), journal, Sampler(folder), clock.now)


def send(one: Reporter, clock: Clock) -> Telemetry:
    """What a report says that is sent now."""
    voice = Voice()
    one.send(voice, PHASE, clock.now, retries=4, model_sha256="")  # type: ignore[arg-type]
    [(topic, manifest)] = voice.sent
    assert topic == f"floe/floe/device/ann/{PHASE.lineage}/telemetry"
    return msgspec.json.decode(manifest.core.meta, type=Telemetry)


def due_after(one: Reporter, clock: Clock) -> float:
    """In how many seconds the next report is due, to a tenth."""
    return next(n / 10 for n in range(1000) if one.is_due(clock.now + n / 10))


def test_without_a_line_a_device_reports_at_its_interval(tmp_path: Path, clock: Clock) -> None:
    one = reporter(Journal("info", clock), tmp_path, clock)
    assert due_after(one, clock) == telemetry.FIRST_S / 2
    assert send(one, clock).retries == 4
    assert due_after(one, clock) == 60.0


def test_a_device_with_an_interval_of_nothing_never_reports(tmp_path: Path, clock: Clock) -> None:
    journal = Journal("info", clock)
    one = reporter(journal, tmp_path, clock, telemetry_s=0.0)
    journal.hear("error: the disk is full")
    assert not one.is_due(clock.now + 1e6)


@pytest.mark.parametrize(
    ("lines", "seconds"), [(["a"], 6.0), (["a", "warning: b"], 2.0), (["error: a", "b"], 2.0), (["a", "b"], 6.0)]
)
def test_new_lines_are_sent_soon_and_what_is_wrong_sooner(
    tmp_path: Path, clock: Clock, lines: list[str], seconds: float
) -> None:
    journal = Journal("info", clock)
    one = reporter(journal, tmp_path, clock)
    send(one, clock)
    for line in lines:
        journal.hear(line)
    assert due_after(one, clock) == seconds


def test_two_reports_are_some_seconds_apart_whatever_is_logged(tmp_path: Path, clock: Clock) -> None:
    journal = Journal("info", clock)
    one = reporter(journal, tmp_path, clock)
    journal.hear("error: a")
    clock.now += 5
    assert one.is_due(clock.now)
    send(one, clock)
    journal.hear("error: b")
    clock.now += 1.9
    assert not one.is_due(clock.now)
    clock.now += 0.2
    assert one.is_due(clock.now)


def test_a_line_goes_once_with_its_level_and_age(tmp_path: Path, clock: Clock) -> None:
    journal = Journal("info", clock)
    one = reporter(journal, tmp_path, clock)
    journal.hear("warning: connection lost: gone")
    clock.now += 3
    journal.hear("connected")
    assert send(one, clock).lines == (Line(3.0, "warning", "connection lost: gone"), Line(0.0, "info", "connected"))
    assert send(one, clock).lines == ()


@pytest.mark.parametrize(("least", "kept"), [("info", ["a", "b", "c"]), ("warning", ["b", "c"]), ("none", [])])
def test_lines_below_the_level_that_is_reported_are_not_kept(clock: Clock, least: str, kept: list[str]) -> None:
    journal = Journal(least, clock)
    for line in ("a", "warning: b", "error: c"):
        journal.hear(line)
    assert [line.text for line in journal.take(clock.now)[0]] == kept


def test_of_too_many_lines_the_oldest_make_room_and_are_counted(clock: Clock) -> None:
    journal = Journal("info", clock)
    for number in range(430):
        journal.hear(f"line {number}")
    told = []
    while journal.due is not None:
        told.append(journal.take(clock.now))
    assert [(lines[0].text, lines[-1].text, len(lines), dropped) for lines, dropped in told] == [
        ("line 30", "line 129", 100, 30), ("line 130", "line 229", 100, 0), ("line 230", "line 329", 100, 0),
        ("line 330", "line 429", 100, 0),
    ]  # fmt: skip


def test_many_lines_do_not_wait_for_their_time_but_for_the_report_before(tmp_path: Path, clock: Clock) -> None:
    journal = Journal("info", clock)
    one = reporter(journal, tmp_path, clock)
    send(one, clock)
    clock.now += 1
    for number in range(telemetry.MANY):
        assert due_after(one, clock) == (6.0 if number else 59.0)
        journal.hear(f"line {number}")
    assert due_after(one, clock) == telemetry.APART_S - 1
    clock.now += 5
    assert one.is_due(clock.now)
    assert len(send(one, clock).lines) == telemetry.MANY


def test_a_device_that_logs_forty_lines_a_second_loses_none(tmp_path: Path, clock: Clock) -> None:
    journal = Journal("info", clock)
    one = reporter(journal, tmp_path, clock)
    told: list[str] = []
    for number in range(4000):
        if number < 3000:
            journal.hear(f"line {number}")
        clock.now += 1 / 40
        if one.is_due(clock.now):
            report = send(one, clock)
            assert report.dropped == 0
            told += [line.text for line in report.lines]
    assert told == [f"line {number}" for number in range(3000)]


def test_what_a_fleet_logs_at_once_is_not_sent_at_once() -> None:
    def due(text: str) -> float:
        journal = Journal("info", lambda: 100.0)
        journal.hear(text)
        assert journal.due is not None
        return journal.due - 100

    for text, (first, last) in (("a", telemetry.SOON_S["info"]), ("error: a", telemetry.SOON_S["error"])):
        found = [due(text) for _ in range(1000)]
        assert first <= min(found) < first + (last - first) / 10
        assert last - (last - first) / 10 < max(found) <= last


@pytest.mark.parametrize("suite", ["plaintext", "chacha20-poly1305", "fernet"])
def test_long_lines_go_in_more_than_one_report_each_of_which_fits(tmp_path: Path, clock: Clock, suite: Suite) -> None:
    journal, ring = Journal("info", clock), keyring(suite)
    for number in range(100):
        journal.hear(f"{number} " + '"\U0001f600' * 400)
    told: list[str] = []
    reports = 0
    while journal.due is not None:
        lines, dropped = journal.take(clock.now)
        assert lines
        assert dropped == 0
        meta = msgspec.json.encode(Telemetry(lines=lines)).decode()
        core, key = seal_meta(meta, ring, federation="floe", phase=PHASE, kind="telemetry", sender="ann", base="")
        manifest = Manifest(
            federation="floe", sender="ann", key=ANN.key, proof="", seq=1, core=core,
            envelope=ring.envelope(core, key, "main"),
        )  # fmt: skip
        assert len(ANN.sign(manifest)) <= MAX_MESSAGE_BYTES
        found = open_meta(
            ring.open(msgspec.convert(msgspec.to_builtins(core), type(core)), manifest.envelope), core, Telemetry
        )
        told += [line.text.split()[0] for line in found.lines]
        reports += 1
    assert told == [str(number) for number in range(100)]
    assert reports > 1
