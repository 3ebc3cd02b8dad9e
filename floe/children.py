"""Processes that must not outlive the one that started them. Starts, watches and ends them by pid; writes their logs.

`floe demo` and `floe bench` run a federation so. Each is in a session of its own, so that Ctrl-C reaches only the
parent, which ends them in order: what was started last first. Should the parent be killed outright, the kernel sends
each a SIGTERM (prctl(2), PR_SET_PDEATHSIG; Linux).
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

from floe.errors import BrokerError, FloeError
from floe.service import dying_with_parent

STOP_S = 5.0
STOP_BROKER_S = 12.0  # it gives Mosquitto ten
BROKER_S = 30.0
TAIL_LINES = 8


@dataclass(frozen=True)
class Child:
    """One process, under the name that a person knows it by, and the file with what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])

    def fault(self) -> FloeError:
        """Why it ended, as the error it ended with itself: its last message, its class by the exit code."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        start = max((i for i, line in enumerate(lines) if line.startswith("floe: ")), default=None)
        kinds = {kind.exit_code: kind for kind in FloeError.__subclasses__() if hasattr(kind, "exit_code")}
        kind = kinds.get(self.process.returncode, FloeError)
        if start is not None:
            return kind("\n".join(lines[start:]).removeprefix("floe: "))
        return FloeError(f"{self.name} ended with code {self.process.returncode}; {self.log} ends:\n{self.tail()}")


class Children:
    """A block: every process started in it has ended when it ends, however it ends."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._all: list[Child] = []

    def start(self, name: str, *arguments: str, module: str = "floe") -> Child:
        """Run `floe <arguments>`, or another module, in the folder; what it says goes to `logs/<name>.log` there."""
        return self._start(name, arguments, module, None)

    def said(self, name: str, stopped: Callable[[], bool], *arguments: str) -> list[str]:
        """Run `floe <arguments>` to its end: the lines of its stdout, which go to no log. Raises its error."""
        with TemporaryFile() as stdout:
            self.wait(self._start(name, arguments, "floe", stdout.fileno()), stopped)
            stdout.seek(0)
            return stdout.read().decode().splitlines()

    def _start(self, name: str, arguments: Sequence[str], module: str, stdout: int | None) -> Child:
        log = self._folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file if stdout is None else stdout,
                stderr=file,
                start_new_session=True,
                preexec_fn=dying_with_parent(),
            )
        self._all.append(Child(name, process, log))
        return self._all[-1]

    def ended(self) -> Child | None:
        """The first that is not running any more."""
        return next((child for child in self._all if child.process.poll() is not None), None)

    def wait(self, child: Child, stopped: Callable[[], bool], poll_s: float = 0.05) -> None:
        """Until one that has an end of its own has ended, or `stopped`. Raises its error unless it ended well."""
        while child.process.poll() is None:
            if stopped():
                return
            time.sleep(poll_s)
        if child.process.returncode:
            raise child.fault()
        self._all.remove(child)

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Devices first, the broker last, so that each can say that it goes.
            _terminate(self._all[1:], STOP_S)
            _terminate(self._all[:1], STOP_BROKER_S)
        finally:
            for child in self._all:
                if child.process.poll() is None:
                    child.process.kill()
                    child.process.wait()


def _terminate(children: Sequence[Child], stop_s: float) -> None:
    until = time.monotonic() + stop_s
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            continue


def await_port(child: Child, port: int, stopped: Callable[[], bool]) -> None:
    """Until a broker, or a page, takes connections on a port of this machine, or `stopped`. Raises its error, or
    `BrokerError`.
    """
    until = time.monotonic() + BROKER_S
    while not stopped():
        if child.process.poll() is not None:
            raise child.fault()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if time.monotonic() > until:
            raise BrokerError(f"{child.name}: no answer on port {port} after {BROKER_S:g} s; see {child.log}")
        time.sleep(0.05)


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
