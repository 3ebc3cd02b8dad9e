"""`floe demo` as a user runs it: real processes, a real Mosquitto, real data."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WAIT_S = 120.0
FIELDS = {
    "rounds", "clients", "accuracy", "roc_auc", "loss", "updates_accepted", "bytes_up", "bytes_down",
    "model_sha256", "database", "models",
}  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "floe", "demo", *arguments]


def environment(**extra: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FLOE_")} | extra


def run(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(**extra), capture_output=True, text=True, timeout=WAIT_S,
        check=False,
    )  # fmt: skip


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def processes_of(folder: Path) -> dict[int, str]:
    """Process ids and command lines of what works in a folder."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, place = (path / "cmdline").read_bytes(), (path / "cwd").resolve()
        except OSError:
            continue
        if words and place.is_relative_to(folder):
            found[int(path.name)] = words.replace(b"\0", b" ").decode()
    return found


def pid_of(folder: Path, words: str) -> int:
    (pid,) = (pid for pid, line in processes_of(folder).items() if words in line)
    return pid


def await_none(folder: Path) -> None:
    until = time.monotonic() + 30
    while left := processes_of(folder):
        assert time.monotonic() < until, left
        time.sleep(0.05)


@contextmanager
def running(folder: Path, data: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in run/ of the folder, from the moment when a round is open."""
    with subprocess.Popen(
        command("--data", str(data), "--out", "run", "--rounds", "1000", *arguments),
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            log = folder / "run" / "logs" / "aggregator.log"
            until = time.monotonic() + WAIT_S
            while not (log.exists() and "sums 0 with" in log.read_text()):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def features(folder: Path, rows: int) -> None:
    folder.mkdir(parents=True)
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    for part in ("train", "test"):
        np.save(folder / f"{part}_x.npy", x)
        np.save(folder / f"{part}_y.npy", (np.arange(rows) % 4 == 3).astype(np.int64))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's own: features of two devices, ready at once."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    for name in ("bank", "insurance"):
        features(folder / name, 40 + len(name))
    return folder


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory, mine: Path) -> dict[str, Any]:
    """The JSON object of a run over them."""
    return result_of(run(tmp_path_factory.mktemp("run"), "--data", str(mine), *TWO_ROUNDS))


TWO_ROUNDS = ("--rounds", "2", "--json", "--out", "run")


def test_the_default_demo_learns_and_leaves_what_it_says_it_leaves(tmp_path: Path) -> None:
    done = run(tmp_path, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    for place in ("floe.toml", "log/floe.sqlite", "log/updates.csv", "models/global/1.safetensors"):
        assert (folder / place).is_file()
    assert f"\nlog     {folder.relative_to(tmp_path)}/log/floe.sqlite\n" in done.stdout
    assert "round  devices" in done.stdout
    assert (folder / "federation.pub").is_file()
    assert not (folder / "secret.key").exists()
    assert processes_of(folder) == {}
    with closing(sqlite3.connect(folder / "log" / "floe.sqlite")) as db:
        assert db.execute("SELECT roc_auc FROM models WHERE round = 1").fetchone()[0] > 0.8


def test_the_json_object_stands_alone_and_agrees_with_the_log(two_rounds: dict[str, Any]) -> None:
    assert two_rounds.keys() >= FIELDS
    assert (two_rounds["rounds"], two_rounds["clients"], two_rounds["updates_accepted"]) == (2, 2, 4)
    with closing(sqlite3.connect(two_rounds["database"])) as db:
        row = db.execute("SELECT sha256, loss, accuracy, roc_auc FROM models ORDER BY round DESC").fetchone()
        up, down = db.execute("SELECT sum(bytes_up), sum(bytes_down) FROM rounds").fetchone()
    assert row == tuple(two_rounds[name] for name in ("model_sha256", "loss", "accuracy", "roc_auc"))
    assert (two_rounds["bytes_up"], two_rounds["bytes_down"]) == (up, down)
    assert (Path(two_rounds["models"]) / "global" / "2.safetensors").is_file()


def test_a_folder_of_devices_is_a_federation_of_them_by_name(two_rounds: dict[str, Any]) -> None:
    with closing(sqlite3.connect(two_rounds["database"])) as db:
        assert db.execute("SELECT device FROM devices ORDER BY 1").fetchall() == [("bank",), ("insurance",)]


def test_the_same_seed_gives_the_same_model(tmp_path: Path, mine: Path, two_rounds: dict[str, Any]) -> None:
    again = result_of(run(tmp_path, "--data", str(mine), *TWO_ROUNDS))
    assert again["model_sha256"] == two_rounds["model_sha256"]


def test_digits_in_plaintext_have_no_roc_auc_and_no_weights_travel_where_only_accuracy_is_reported(
    tmp_path: Path,
) -> None:
    flags = ("--data", "digits", "--clients", "2", "--rounds", "1", "--partition", "dirichlet", "--suite", "plaintext")
    found = result_of(run(tmp_path, *flags, "--report", "accuracy", "--rows", "600", "--json", "--out", "run"))
    assert (found["roc_auc"], found["model_sha256"]) == (None, None)
    assert found["accuracy"] > 0.2, "of ten classes"
    assert not (tmp_path / "run" / "secret.key").exists()
    with closing(sqlite3.connect(found["database"])) as db:
        assert db.execute("SELECT DISTINCT suite FROM updates").fetchall() == [("plaintext",)]
        assert db.execute("SELECT count(*) FROM models").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM updates WHERE sha256 IS NOT NULL").fetchone() == (0,)
        assert db.execute("SELECT max(bytes) FROM updates").fetchone()[0] < 4096


def test_mnist_runs_the_same_way(tmp_path: Path, data_folder: Path) -> None:
    if not (data_folder / "mnist").is_dir():
        pytest.skip(f"real data: no mnist in {data_folder}; name a folder with FLOE_DATA")
    flags = ("--data", "mnist", "--rows", "300", "--clients", "2", "--rounds", "1", "--partition", "shards")
    found = result_of(run(tmp_path, *flags, "--json", "--out", "run", FLOE_DATA=str(data_folder)))
    assert (found["updates_accepted"], found["roc_auc"]) == (2, None)


def test_devices_that_are_all_refused_end_it_with_the_reasons(tmp_path: Path) -> None:
    for name in ("bank", "insurance"):
        features(tmp_path / "mine" / name, 4)
    done = run(tmp_path, "--data", "mine", "--rounds", "1", "--json", "--out", "run")
    assert done.returncode == 7
    assert done.stdout == ""
    assert "sums 0 did not close: every device was refused: bank: device: " in done.stderr
    assert str(tmp_path / "run" / "log" / "floe.sqlite") in done.stderr
    await_none(tmp_path / "run")


def test_a_device_that_dies_ends_it_with_the_end_of_its_log(tmp_path: Path, mine: Path) -> None:
    with running(tmp_path, mine) as demo:
        os.kill(pid_of(tmp_path / "run", "--id insurance"), signal.SIGKILL)
        out, err = demo.communicate(timeout=60)
    assert demo.returncode == 7
    assert "insurance ended with code -9" in err
    assert str(tmp_path / "run" / "logs" / "insurance.log") in err
    assert "connected to" in err
    assert "Traceback" not in out + err
    await_none(tmp_path / "run")


def test_a_device_that_hangs_ends_it_when_patience_does(tmp_path: Path, mine: Path) -> None:
    with running(tmp_path, mine, "--patience", "3") as demo:
        hanging = pid_of(tmp_path / "run", "--id insurance")
        os.kill(hanging, signal.SIGSTOP)
        _, err = demo.communicate(timeout=90)
    assert demo.returncode == 7
    assert "nothing has moved for 3 s" in err
    await_none(tmp_path / "run")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_when_it_is_stopped_no_process_survives(tmp_path: Path, mine: Path, number: signal.Signals, code: int) -> None:
    """What survives a demo that is killed outright: tests/unit/test_children.py."""
    with running(tmp_path, mine) as demo:
        assert len(processes_of(tmp_path / "run")) >= 4
        demo.send_signal(number)
        _, err = demo.communicate(timeout=60)
    assert demo.returncode == code
    await_none(tmp_path / "run")
    assert "what was done is in run" in err
    assert "Traceback" not in err


def test_with_its_page_a_demo_that_is_over_stays_to_be_steered(tmp_path: Path, mine: Path) -> None:
    with running(tmp_path, mine, "--ui", "--json", "--rounds", "1") as demo:
        assert demo.stdout
        told = json.loads(demo.stdout.readline())
        assert told["rounds"] == 1
        log = (tmp_path / "run" / "logs" / "ui.log").read_text()
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", log)
        with urllib.request.urlopen(address, timeout=30) as page:
            assert page.status == 200
        steered = subprocess.run(
            [sys.executable, "-m", "floe", "round", "start", "--rounds", "1"], cwd=tmp_path / "run",
            env=environment(), capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
        assert steered.stdout == "started, to round 2\n", steered.stderr
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, out) == (0, "")
    assert f"the page: {address} (Ctrl-C ends it, and the federation)" in err
    await_none(tmp_path / "run")


def test_a_folder_that_is_in_use_and_data_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    done = run(tmp_path, "--out", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not an empty folder" in done.stderr
    done = run(tmp_path, "--data", "nowhere", "--out", "new")
    assert done.returncode == 3
    assert "nowhere" in done.stderr
    await_none(tmp_path / "new")
    done = run(tmp_path, "--data", "mnist")
    assert done.returncode == 3
    assert "set FLOE_DATA" in done.stderr
    assert "floe data fetch mnist" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "what could not begin leaves no folder"


def test_without_mosquitto_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--out", "run", FLOE_BROKER_MOSQUITTO="no-such-program")
    assert done.returncode == 4
    assert "sudo apt-get install mosquitto" in done.stderr
    await_none(tmp_path / "run")
