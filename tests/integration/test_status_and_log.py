"""`floe status`, `floe log --follow` and `floe diag` beside a federation that trains, on a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.federation import Federation
from helpers.process import environment

ROOT = Path(__file__).resolve().parents[2]


def floe(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "floe", *arguments], cwd=folder, env=environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def status(federation: Federation) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(floe(federation.folder, "status", "--json"))
    return found


def lines(federation: Federation) -> list[str]:
    """What the follower has printed: the JSON lines of its file, which has what it says on stderr as well."""
    said = (federation.folder / "logs" / "following.log").read_text().splitlines()
    return [json.loads(line)["text"] for line in said if line.startswith("{")]


@pytest.fixture
def trained(federation: Federation) -> Federation:
    """Two rounds are done while `floe log --follow` was running since before there was a log."""
    federation.start("following", "log", "--follow", "--kind", "opened", "--json")
    federation.wait(lambda: "there is no log yet" in federation.said(), "it says that there is no log")
    federation.aggregator()
    for device in ("a", "b"):
        federation.client(device)
    federation.finish()
    return federation


def test_what_is_shown_equals_the_log_and_the_follower_goes_on_over_a_restart(trained: Federation) -> None:
    opened = [row["text"] for row in trained.query("SELECT text FROM events WHERE kind = 'opened' ORDER BY id")]
    assert opened
    trained.wait(lambda: lines(trained) == opened, "the follower has printed every opened round, once")

    found = status(trained)
    assert (found["running"], found["trouble"]) == (True, None)
    rows = trained.query("SELECT device, last_seen, rounds FROM devices ORDER BY device")
    shown = sorted(found["devices"], key=lambda device: str(device["device"]))
    assert [device["device"] for device in shown] == [row["device"] for row in rows] == ["a", "b"]
    assert [device["rounds"] for device in shown] == [row["rounds"] for row in rows]
    newest = trained.query("SELECT task, round FROM rounds ORDER BY round DESC, opened_at DESC LIMIT 1")[0]
    assert (found["round"]["task"], found["round"]["round"]) == (newest["task"], newest["round"])

    aggregator = next(process for process in trained.processes if process.log.stem == "aggregator")
    aggregator.terminate()
    aggregator.end()
    assert status(trained)["running"] is False
    assert "aggregator NOT running; last event" in floe(trained.folder, "status")
    trained.aggregator("--rounds", "3")
    text = "SELECT text FROM events WHERE kind = 'opened' AND text LIKE 'train 3 %'"
    third = trained.until(text)["text"]
    trained.wait(lambda: third in lines(trained), "the follower prints what the next aggregator opens")
    assert lines(trained)[: len(opened)] == opened

    floe(trained.folder, "diag", "--out", "d.tar.gz")
    secret = (trained.folder / "secret.key").read_text().split()
    with tarfile.open(trained.folder / "d.tar.gz") as archive:
        files = {about.name: archive.extractfile(about) for about in archive}
        texts = {name: file.read().decode() for name, file in files.items() if file is not None}
    assert not [(name, word) for name, text in texts.items() for word in secret if len(word) > 8 and word in text]
    assert third in next(text for name, text in texts.items() if name.endswith("log.txt"))
