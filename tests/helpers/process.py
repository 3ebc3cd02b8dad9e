"""One `floe ...` as a process of its own. Starts it, stops it by its pid, keeps what it said in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

WAIT_S = 60.0
ROOT = Path(__file__).resolve().parents[2]
Spawn = Callable[[Sequence[str], Path, Mapping[str, str], Path], Any]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of Floe, one thread for torch, and with the modules of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOE_")}
    ours = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return {**kept, **ours, **(extra or {})}


def python(*words: str) -> list[str]:
    """The command for a module with its arguments."""
    return [sys.executable, "-m", *words]


def spawn(words: Sequence[str], folder: Path, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a module with its arguments in a folder; what it says is appended to `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(python(*words), cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


class Process:
    """A running `python -m floe <arguments>` in `folder`; stdout and stderr are appended to `log`.

    `by` is what starts it instead of floe itself: a module of the tests and its own arguments; `spawn`: how.
    """

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        by: Sequence[str] = ("floe",),
        spawn: Spawn = spawn,
    ) -> None:
        self.log = log
        self._popen = spawn([*by, *arguments], folder, environment(env), log)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def said(self) -> str:
        """All that it wrote so far, earlier processes with the same log file included."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s:g} s; it said:\n{self.said()}") from None

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        self._popen.send_signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        """kill -9."""
        self._popen.kill()
        self._popen.wait()

    def terminate(self) -> None:
        """Ask it to end; `end` waits for it."""
        if self.running:
            self._popen.terminate()

    def end(self) -> None:
        """Wait for a process that was asked to end; kill it if it does not."""
        try:
            self._popen.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
