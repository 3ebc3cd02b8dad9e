"""`floe status` and `floe log` as commands: what they show equals the log, and nothing steers the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.process import WAIT_S, environment

from aggregator.log import Log
from floe.messages import Phase
from floe.plan import Plan
from floe.selection import EVERYBODY
from floe.store import FILE, now
from ui.times import how_long_ago, local, seconds_since

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "\x1b[2J<b>[red]all is well[/red]\r\nok \u202e"


def floe(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "floe", *arguments]
    env = environment({"PYTHONPATH": str(ROOT), **(env or {})})
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False)


def printed(folder: Path, *arguments: str) -> str:
    done = floe(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with closing(Log(tmp_path / "log")) as made:
        yield made


@pytest.fixture
def filled(log: Log) -> Log:
    """30 devices, an open round, two bad events, one of them hostile, and a line of a device."""
    names = [f"pump-{number:02}" for number in range(30)]
    for name in names:
        log.pin(name, name)
    log.open_round(Phase("main", 1, 1, "train"), None, Plan(), EVERYBODY, names)
    log.event("info", "opened", "train 1 with 30 devices")
    log.event("warning", "rejected", f"pump-03: {HOSTILE}", device="pump-03")
    log.event("error", "damaged", "a file is damaged")
    early, late = "2026-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"
    row = ("main", 1, 1, "train", "open", "", 9, 30, 2, 28, "{}", late, early, early)
    with log.db.atomic():
        log.db.execute(f"INSERT INTO standing VALUES ({', '.join('?' * len(row))})", row)
        log.db.execute("UPDATE devices SET state = 'idle' WHERE device != 'pump-07'")
        log.db.execute("INSERT INTO broker VALUES ('$SYS/broker/clients/connected', '31', '2026-01-01T00:00:00.000Z')")
        says = "INSERT INTO journal (time, said_at, device, level, text) VALUES (?, ?, 'pump-04', 'warning', ?)"
        log.db.execute(says, (now(), now(), f"disk nearly full {HOSTILE}"))
    return log


def assert_harmless(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "\\x1b[2J<b>[red]all is well[/red]\\r\\nok \\u202e" in text


def test_status_says_health_round_devices_what_went_wrong_and_the_broker(filled: Log, tmp_path: Path) -> None:
    text = printed(tmp_path, "status")
    assert_harmless(text)
    assert re.search(r"^aggregator: not known from here; last event [\d.]+ (s|min) ago, \d{4}-", text)
    assert "round    train 1 of 9 (epoch 1), open\nquorum   28, 2 still missing; deadline in " in text
    assert "devices  29 idle, 1 unknown\nexpected 30: 29 waiting, 1 offline\n" in text
    assert "a file is damaged" in text
    assert "\nbroker   31 clients connected\n" in text
    rows = re.findall(r"^pump-\d\d ", text, re.MULTILINE)
    assert len(rows) == 20
    assert rows[0] == "pump-07 "  # it is the one that is not there
    assert "and 10 more" in text


def test_status_tells_a_handful_of_the_brokers_figures_in_words(filled: Log, tmp_path: Path) -> None:
    for topic, value in {
        "version": "mosquitto version 2.0.18", "load/messages/received/1min": "1394.4", "heap/current": "9",
        "load/messages/sent/1min": "nan", "publish/messages/dropped": "0",
    }.items():  # fmt: skip
        filled.db.execute(f"INSERT INTO broker VALUES ('$SYS/broker/{topic}', ?, ?)", [value, now()])
    told = "mosquitto version 2.0.18, 31 clients connected, 1,394 messages in per min, 0 dropped"
    assert f"\nbroker   {told}\n" in printed(tmp_path, "status")


def test_status_names_the_time_zone(filled: Log, tmp_path: Path) -> None:
    text = floe(tmp_path, "status", env={"TZ": "XYZ-5:30"}).stdout
    assert re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d XYZ", text)


def test_status_as_json_has_all_devices_and_equals_the_tables(filled: Log, tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(printed(tmp_path, "status", "--json"))
    assert found["running"] is None
    assert found["trouble"] is None
    assert {device["device"] for device in found["devices"]} == {f"pump-{number:02}" for number in range(30)}
    assert found["devices"][0]["doing"] == "offline"
    columns = next(iter(filled.db.query("SELECT * FROM standing")))
    assert found["standing"] == {name: value for name, value in columns.items() if name != "lineage"}
    assert {entry["level"] for entry in found["lately"]} == {"warning", "error"}
    assert len(found["lately"]) == 3
    assert found["broker"] == {"$SYS/broker/clients/connected": "31"}


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_status_without_a_log_says_so_and_ends_with_6(flags: tuple[str, ...], tmp_path: Path) -> None:
    done = floe(tmp_path, "status", *flags)
    assert done.returncode == 6
    assert "there is no log yet" in done.stdout
    assert "`floe aggregator` writes it" in done.stderr
    assert "Traceback" not in done.stderr
    if flags:
        assert json.loads(done.stdout)["trouble"]["kind"] == "missing"


def test_log_prints_both_tables_oldest_first(filled: Log, tmp_path: Path) -> None:
    text = printed(tmp_path, "log")
    assert_harmless(text)
    lines = text.splitlines()
    assert [re.split(r"  +", line)[1] for line in lines[:2]] == ["info", "warning"]
    assert len(lines) == 4
    assert lines[0].endswith("train 1 with 30 devices")
    assert sum("pump-04 says: disk nearly full" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("--level", "error"), ["a file is damaged"]),
        (("--device", "pump-03"), [f"pump-03: {HOSTILE}"]),
        (("--grep", "NEARLY full"), [f"disk nearly full {HOSTILE}"]),
        (("--kind", "opened"), ["train 1 with 30 devices"]),
        (("--lines", "0"), []),
        (("--device", "nobody"), []),
    ],
)
def test_log_prints_what_fits(filled: Log, tmp_path: Path, flags: tuple[str, ...], wanted: list[str]) -> None:
    lines = printed(tmp_path, "log", "--json", *flags).splitlines()
    assert [json.loads(line)["text"] for line in lines] == wanted


def test_a_damaged_log_is_one_line_with_the_way_out(filled: Log, tmp_path: Path) -> None:
    filled.close()
    (tmp_path / "log" / FILE).write_bytes(b"x" * 100_000)
    for command in ("log", "status"):
        done = floe(tmp_path, command)
        assert done.returncode == 6
        assert "damaged" in done.stderr
        assert "floe check" in done.stderr
        assert "Traceback" not in done.stderr


class Following:
    """A running `floe log --follow` or `floe status` and what it has said."""

    def __init__(self, folder: Path, *arguments: str, terminal: bool = False) -> None:
        self._read, write = pty.openpty() if terminal else os.pipe()
        env = environment({"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "160", "LINES": "24"})
        command = [sys.executable, "-m", "floe", *arguments]
        self._errors = (folder / "errors").open("w+")
        self.popen = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=write, stderr=self._errors
        )
        os.close(write)
        self.said = ""

    def until(self, text: str) -> None:
        end = time.monotonic() + WAIT_S
        while text not in self.said:
            assert time.monotonic() < end, f"{text!r} was not said: {self.said!r}, {self.errors()!r}"
            if select.select([self._read], [], [], 0.1)[0]:
                self.said += os.read(self._read, 65536).decode()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def wait_for_error(self, text: str) -> None:
        end = time.monotonic() + WAIT_S
        while text not in self.errors():
            assert time.monotonic() < end, f"{text!r} was not said: {self.errors()!r}"
            time.sleep(0.05)

    def interrupt(self) -> int:
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(WAIT_S)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        os.close(self._read)
        self._errors.close()


def test_log_follows_from_before_there_is_a_log_and_over_restarts(tmp_path: Path) -> None:
    with closing(Following(tmp_path, "log", "--follow", "--level", "warning")) as following:
        following.wait_for_error("there is no log yet")
        for number in range(3):  # three lives of an aggregator
            with closing(Log(tmp_path / "log")) as log:
                log.event("info", "opened", f"fine {number}")
                log.event("warning", "rejected", f"bad {number} {HOSTILE}")
                following.until(f"bad {number}")
        (tmp_path / "log").rename(tmp_path / "away")
        with closing(Log(tmp_path / "log")) as log:
            log.event("error", "damaged", "a new log")
            following.until("a new log")
        assert following.interrupt() == 130
        assert "fine" not in following.said
        assert_harmless(following.said)
        assert len(re.findall("bad", following.said)) == 3
        assert "Traceback" not in following.errors()


def test_status_in_a_terminal_is_live_until_it_is_interrupted(filled: Log, tmp_path: Path) -> None:
    with closing(Following(tmp_path, "status", terminal=True)) as following:
        following.until("as of ")
        assert "a file is damaged" in following.said
        filled.event("error", "restored", "something new went wrong")
        following.until("something new went wrong")
        assert following.interrupt() == 130
        assert "\x1b[2J" not in following.said
        assert "Traceback" not in following.errors()


def test_a_time_of_the_log_is_shown_in_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    start = "2026-11-21T22:00:00.000Z"
    assert (local(start), local(start, day=False)) == ("2026-11-22 03:30:00 XYZ", "03:30:00 XYZ")
    assert how_long_ago(start, "2026-11-21T22:03:00.000Z") == "3 min ago"
    assert seconds_since(start, "2026-11-21T21:59:59.500Z") == -0.5
    monkeypatch.undo()
    time.tzset()


def test_a_log_that_is_locked_says_so(filled: Log, tmp_path: Path) -> None:
    filled.close()
    with closing(sqlite3.connect(tmp_path / "log" / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        done = floe(tmp_path, "log")
    assert done.returncode == 6
    assert "holds the log for itself alone" in done.stderr
