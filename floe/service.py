"""How a process of Floe runs: signals, its parent's end, the lock on its state folder, one line of log at a time."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from floe.errors import StoreError
from floe.terminal import printable

_PR_SET_PDEATHSIG = 1
PATIENCE_S = 0.5


class Stop:
    """Becomes true at SIGINT or SIGTERM; a second SIGINT interrupts at once.

    `code` is the exit code that fits: 130 after SIGINT, 0 after SIGTERM, as service managers expect.
    """

    def __init__(self) -> None:
        self.requested = False
        self.code = 0

    def __call__(self) -> bool:
        return self.requested

    def request(self, code: int) -> None:
        self.requested, self.code = True, code


@contextmanager
def stopping() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM for the block. Main thread only."""
    stop = Stop()

    def handle(number: int, frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.request(130 if number == signal.SIGINT else 0)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def dying_with_parent() -> Callable[[], None] | None:
    """For `Popen(preexec_fn=...)`: the child gets SIGTERM when the thread that started it ends. None if not Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def call() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return call


@contextmanager
def only_one(state: Path, what: str) -> Iterator[None]:
    """Hold the lock of a state folder; raises `StoreError` if another process has it. Makes the folder, mode 0700.

    Who only looks (`is_running`) has it for a moment, too: it is tried for `PATIENCE_S`.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (state / "lock").open("w")
    except OSError as error:
        raise StoreError(_state_fault(state, error)) from None
    with file:
        end = time.monotonic() + PATIENCE_S
        while not _locked(file):
            if time.monotonic() >= end:
                raise StoreError(f"{state}: another {what} is running with this state folder")
            time.sleep(0.01)
        yield


def _locked(file: IO[Any]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(state: Path) -> bool:
    """Whether a process holds the lock of a state folder. Makes nothing, and keeps nobody waiting."""
    try:
        file = (state / "lock").open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _state_fault(state: Path, error: OSError) -> str:
    way_out = "or choose another folder with [paths] state"
    in_the_way = next((path for path in (*reversed(state.parents), state) if _is_other_than_folder(path)), None)
    if in_the_way is not None:
        return f"{in_the_way}: not a folder, and the state folder is to be {state}: move it away, {way_out}"
    if isinstance(error, IsADirectoryError):
        return f"{state / 'lock'}: a folder, where the lock file is to be: remove it, {way_out}"
    return f"{error.filename or state}: {error.strerror}: give this account the right to write there, {way_out}"


def _is_other_than_folder(path: Path) -> bool:
    return os.path.lexists(path) and not os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises where we may not look)


def log(text: str) -> None:
    """One line for the journal: local time and the text. What a peer wrote cannot steer the terminal."""
    line = printable(text)
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
    for hear in _listeners:
        hear(line)


_listeners: list[Callable[[str], None]] = []


@contextmanager
def overhearing(hear: Callable[[str], None]) -> Iterator[None]:
    """Tell `hear` every line that is logged during the block; in the thread that logs it."""
    _listeners.append(hear)
    try:
        yield
    finally:
        _listeners.remove(hear)
