"""Processes that must not outlive their parent: real ones, ended in every way a parent can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from floe.children import Children
from floe.errors import BrokerError, ConfigError

WAIT_S = 20.0

PARENT = """
import os, sys, time
from pathlib import Path
from floe.children import Children
with Children(Path({folder!r}), os.environ) as children:
    child = children.start("broker", "broker", "--port", {port!r})
    print(child.process.pid, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def await_true(condition: object) -> None:
    until = time.monotonic() + WAIT_S
    assert callable(condition)
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def mosquittos(folder: Path) -> list[int]:
    """The Mosquitto processes whose configuration lies in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mosquitto" in words[0] and any(word.startswith(os.fsencode(folder)) for word in words[1:]):
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG and /proc are Linux'")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_survives_a_parent_that_is_killed(tmp_path: Path, free_port: int, number: signal.Signals) -> None:
    script = PARENT.format(folder=str(tmp_path), port=str(free_port))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        await_true(lambda: mosquittos(tmp_path))
        parent.send_signal(number)
    await_true(lambda: not alive(pid) and not mosquittos(tmp_path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux'")
def test_leaving_the_block_by_an_error_ends_every_process(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(ZeroDivisionError), Children(tmp_path, os.environ) as children:  # noqa: PT012
        child = children.start("broker", "broker", "--port", str(free_port))
        await_true(lambda: mosquittos(tmp_path))
        raise ZeroDivisionError
    assert child.process.returncode == 0, "asked to end, not killed"
    assert mosquittos(tmp_path) == []


def test_a_process_that_fails_raises_the_error_it_ended_with(tmp_path: Path) -> None:
    with Children(tmp_path, os.environ) as children:
        child = children.start("broker", "broker", "--port", "none")
        with pytest.raises(ConfigError, match=r"--port = 'none': allowed is whole number"):
            children.wait(child, lambda: False)


def test_a_missing_mosquitto_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with Children(tmp_path, os.environ) as children:
        child = children.start("broker", "broker", "--mosquitto", "no-such-program")
        with pytest.raises(BrokerError, match=r"no-such-program.*sudo apt-get install mosquitto"):
            children.wait(child, lambda: False)
        assert children.ended() is child


def test_waiting_ends_when_a_stop_is_asked_for(tmp_path: Path, free_port: int) -> None:
    with Children(tmp_path, os.environ) as children:
        child = children.start("broker", "broker", "--port", str(free_port))
        children.wait(child, lambda: True)
        assert child.process.poll() is None
