"""Processes of Floe that need not import it, forked from one that has: for tests that start hundreds.

`python -m helpers.warm` is that one. It reads a request a line: to start, answered by a pid; or a pid, answered by its
exit code or null. A process is as `python -m` would start it, except that it has the modules and the PYTHONPATH of the
one that it came from.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.process import environment, python

IMPORTED = (
    *("aggregator.command", "edge_client.command", "edge_client.join"),
    *("floe.cli", "floe.devices", "floe.invite", "floe.replan", "floe.steer", "helpers.plain"),
)


class Warm:
    """One such process, until it is left. One test at a time."""

    def __enter__(self) -> Warm:
        self._server = subprocess.Popen(
            python("helpers.warm"), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *about: object) -> None:
        self._server.communicate()

    def spawn(self, words: Sequence[str], folder: Path, env: Mapping[str, str], log: Path) -> Child:
        """As `process.spawn`."""
        log.touch()  # it may be read before the process has opened it
        request = {"words": list(words), "folder": str(folder), "env": dict(env), "log": str(log)}
        return Child(self, self.ask(request))

    def ask(self, request: object) -> Any:
        """What the server answers."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(f"{json.dumps(request)}\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


class Child:
    """What of `subprocess.Popen` a `Process` needs."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self.pid = pid
        self._warm = warm
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self._code is None:
            self._code = self._warm.ask(self.pid)
        return self._code

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired`."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Unless it has ended: then its pid may be another's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def next_start() -> dict[str, Any] | None:
    """Answer requests until nobody asks (None), or, in a process that was forked for one, what it is to be."""
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):
            pid, status = os.waitpid(request, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                return dict(request)
        os.write(1, f"{json.dumps(answer)}\n".encode())
    return None


def become(words: list[str], folder: str, env: dict[str, str], log: str) -> None:
    """Run a module with its arguments, in its folder, its output at the end of a log."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0], sys.argv = folder, words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    if start := next_start():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        become(**start)
